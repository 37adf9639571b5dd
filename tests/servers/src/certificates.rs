//! Throw-away certificates, made with the `openssl` program.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;

/// A certificate authority, a server certificate for `localhost` and 127.0.0.1, a client certificate for the user
/// `headwater`, certificates of the same server for another name and for none, and a second authority that signed nothing of
/// these. PEM files, valid for a day.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// Certificate of the authority.
    pub ca: PathBuf,
    /// Certificate of another authority, for tests that must refuse.
    pub other_ca: PathBuf,
    /// Certificate of the server.
    pub server_cert: PathBuf,
    /// Certificate of the server for `elsewhere.test` alone, for tests that must refuse.
    pub elsewhere_cert: PathBuf,
    /// Certificate of the server that has a common name and no other, as those that PostgreSQL's manual makes.
    pub nameless_cert: PathBuf,
    /// Key of the server.
    pub server_key: PathBuf,
    /// Certificate of the client; its common name is `headwater`.
    pub client_cert: PathBuf,
    /// Key of the client.
    pub client_key: PathBuf,
}

impl Certificates {
    /// Makes all of them in `folder`.
    pub fn generate(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        for authority in ["ca", "other_ca"] {
            let mut command = openssl(&["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]);
            command.args(["-subj", &format!("/CN=Headwater test {authority}")]);
            command.args(["-addext", "basicConstraints=critical,CA:TRUE"]);
            command.arg("-keyout").arg(file(&format!("{authority}.key")));
            run(command.arg("-out").arg(file(&format!("{authority}.crt"))));
        }
        for (name, subject, extensions) in [
            ("server", "localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"),
            ("client", "headwater", "subjectAltName=DNS:headwater\nextendedKeyUsage=clientAuth\n"),
        ] {
            let (key, request) = (file(&format!("{name}.key")), file(&format!("{name}.csr")));
            let extension_file = file(&format!("{name}.ext"));
            std::fs::write(&extension_file, extensions).expect("the folder is writable");
            let mut command = openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-subj", &format!("/CN={subject}")]);
            run(command.arg("-keyout").arg(&key).arg("-out").arg(&request));
            let mut command = openssl(&["x509", "-req", "-days", "1", "-CAcreateserial"]);
            command.arg("-in").arg(&request).arg("-CA").arg(file("ca.crt")).arg("-CAkey").arg(file("ca.key"));
            command.arg("-extfile").arg(&extension_file);
            run(command.arg("-out").arg(file(&format!("{name}.crt"))));
        }
        for (name, extension) in
            [("elsewhere", "subjectAltName=DNS:elsewhere.test\n"), ("nameless", "basicConstraints=CA:FALSE\n")]
        {
            let extension_file = file(&format!("{name}.ext"));
            std::fs::write(&extension_file, extension).expect("the folder is writable");
            let mut command = openssl(&["x509", "-req", "-days", "1", "-CAcreateserial", "-in"]);
            command.arg(file("server.csr")).arg("-CA").arg(file("ca.crt")).arg("-CAkey").arg(file("ca.key"));
            run(command.arg("-extfile").arg(&extension_file).arg("-out").arg(file(&format!("{name}.crt"))));
        }
        Self {
            ca: file("ca.crt"),
            other_ca: file("other_ca.crt"),
            server_cert: file("server.crt"),
            elsewhere_cert: file("elsewhere.crt"),
            nameless_cert: file("nameless.crt"),
            server_key: file("server.key"),
            client_cert: file("client.crt"),
            client_key: file("client.key"),
        }
    }
}

fn openssl(arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments);
    command
}
