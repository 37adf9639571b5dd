//! Configuration: `headwater.yaml` with one file per connector and one per read model, from files to typed settings.
//!
//! Every mistake is a [`Diagnostic`] with file, line and, for a mistyped name, the nearest correct one.

mod api;
mod api_schema;
mod channels;
mod columns;
mod engines;
mod files;
mod quantity;
mod read;
mod schema;
mod settings;

use std::path::{Path, PathBuf};

use headwater_connectors::ConnectorConfig;
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::model::{self, ParseContext};
use headwater_schemas::{Diagnostic, nearest, suggestion};

use crate::failure::Failure;

pub(crate) use columns::{check_columns, check_tables};
pub(crate) use engines::{Kafka, SaslMechanism, StoreEngine};
#[cfg(test)]
use quantity::ByteSize;
pub(crate) use read::{Environment, Source, read};
use read::{Reading, source_name, try_read};
pub use schema::settings_json_schema;
pub(crate) use settings::Settings;

/// Schema meant where a model names a table as `source.table`.
const DEFAULT_SCHEMA: &str = "public";

/// Everything a Headwater is told.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    /// The configuration file.
    pub(crate) file: PathBuf,
    /// What stands in it.
    pub(crate) settings: Settings,
    /// Names of all sources that are configured, by file name.
    pub(crate) sources: Vec<String>,
    /// The connectors, by file name: those that are needed, and of the others those whose variables are set.
    pub(crate) connectors: Vec<ConnectorFile>,
    /// The read models, by file name.
    pub(crate) models: Vec<ModelFile>,
    /// Names of the models this process is for; all of them when empty.
    selected_models: Vec<String>,
    /// Which variables of connectors that are not needed are not set.
    unasked: Vec<Diagnostic>,
}

/// What the files are read for. Names of sources are always needed, since models hold them; how the sources are reached,
/// passwords included, only by who reaches them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose<'p> {
    /// For everything.
    Whole,
    /// To capture these sources; all of them when none is named.
    Capture(&'p [String]),
    /// For what models define. Sources that can be reached are asked about their tables.
    Definitions,
    /// To serve what is registered in a store: beside the same, files of models may be missing.
    Serve,
}

impl Purpose<'_> {
    fn reaches(self, source: &str) -> bool {
        match self {
            Self::Whole => true,
            Self::Capture(wanted) => wanted.is_empty() || wanted.iter().any(|name| name == source),
            Self::Definitions | Self::Serve => false,
        }
    }
}

/// One connector and the file it came from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConnectorFile {
    /// The file, as messages name it.
    pub(crate) file: String,
    /// What it holds, variables not replaced.
    pub(crate) text: String,
    /// What it means.
    pub(crate) config: ConnectorConfig,
}

/// One read model and the file it came from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelFile {
    /// The file, as messages name it.
    pub(crate) file: String,
    /// What it holds.
    pub(crate) text: String,
    /// What it means.
    pub(crate) model: ReadModel,
}

/// What a reading of the model files gave: those without mistakes, and the mistakes of the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelFiles {
    /// Without mistakes.
    pub(crate) models: Vec<ModelFile>,
    /// What is wrong in files, in their order.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Patterns of the configuration that no file fits.
    pub(crate) unmet: Vec<Diagnostic>,
    /// Patterns whose folder cannot be read: which models there should be is not known.
    pub(crate) unlisted: Vec<Diagnostic>,
}

impl Configuration {
    /// Reads everything, with variables from the process's environment.
    ///
    /// # Errors
    ///
    /// What is wrong: the first mistake of the configuration file; or else one of every connector's file; or else all
    /// mistakes of the models' files; or else what of the API's rules does not fit the models.
    pub(crate) fn load(file: &Path) -> Result<Self, Vec<Diagnostic>> {
        Self::load_for(file, Purpose::Whole)
    }

    /// Reads what is needed for a purpose, with variables from the process's environment; errors as for [`Self::load`].
    pub(crate) fn load_for(file: &Path, purpose: Purpose<'_>) -> Result<Self, Vec<Diagnostic>> {
        Self::load_for_with(file, purpose, &std::env::vars().collect())
    }

    /// Reads everything.
    pub(crate) fn load_with(file: &Path, environment: &Environment) -> Result<Self, Vec<Diagnostic>> {
        Self::load_for_with(file, Purpose::Whole, environment)
    }

    fn load_for_with(file: &Path, purpose: Purpose<'_>, environment: &Environment) -> Result<Self, Vec<Diagnostic>> {
        let mut configuration = Self::settings_only(file, environment).map_err(|diagnostic| vec![diagnostic])?;
        let mut diagnostics = configuration.load_connectors(purpose, environment);
        if diagnostics.is_empty() {
            let models = configuration.read_models();
            if purpose != Purpose::Serve {
                diagnostics.extend(models.unmet);
                diagnostics.extend(models.unlisted);
            }
            diagnostics.extend(models.diagnostics);
            configuration.models = models.models;
            if diagnostics.is_empty() {
                diagnostics.extend(configuration.check_access(purpose));
            }
        }
        if diagnostics.is_empty() { Ok(configuration) } else { Err(diagnostics) }
    }

    /// Reads the configuration file without the connectors and models it names: enough to know the addresses, and it
    /// needs no secrets of sources.
    pub(crate) fn load_settings_only(file: &Path) -> Result<Self, Diagnostic> {
        Self::settings_only(file, &std::env::vars().collect())
    }

    fn settings_only(file: &Path, environment: &Environment) -> Result<Self, Diagnostic> {
        Ok(Self {
            file: file.to_path_buf(),
            settings: load_settings(file, environment)?,
            sources: Vec::new(),
            connectors: Vec::new(),
            models: Vec::new(),
            selected_models: Vec::new(),
            unasked: Vec::new(),
        })
    }

    /// Says in the log which sources are not asked about their tables, and why.
    pub(crate) fn tell_unasked(&self) {
        for unasked in &self.unasked {
            tracing::warn!("a source is not asked about its tables; models are checked when its rows come\n{unasked}");
        }
    }

    /// What callers of the query API may see, and how much.
    pub(crate) fn access(&self) -> headwater_query_api::AccessOptions {
        self.settings.api.access_options(folder_of(&self.file))
    }

    /// How GraphQL is served.
    pub(crate) fn graphql(&self) -> headwater_query_api::GraphQlOptions {
        self.settings.api.graphql.options(folder_of(&self.file))
    }

    /// The folder of the embedded engines.
    pub(crate) fn data_folder(&self) -> PathBuf {
        folder_of(&self.file).join(&self.settings.data)
    }

    /// Where the log is, for messages.
    pub(crate) fn log_place(&self) -> String {
        match &self.settings.broker.kafka {
            Some(kafka) => format!("Kafka at {}", kafka.servers.value.join(",")),
            None => self.data_folder().join("broker").display().to_string(),
        }
    }

    /// Where rows and offsets are, for messages.
    pub(crate) fn rows_place(&self) -> String {
        let store = &self.settings.store;
        match store.mongodb.as_ref().filter(|_| store.rows() == StoreEngine::Mongodb) {
            Some(mongodb) => format!("MongoDB's database `{}`", mongodb.database.value),
            None => self.data_folder().join("store").display().to_string(),
        }
    }

    /// Keeps only the connectors of these sources; all of them when none is named.
    ///
    /// Models are read first, since they may name sources that are captured elsewhere.
    pub(crate) fn select_sources(&mut self, wanted: &[String]) -> Result<(), Failure> {
        all_known(wanted, &self.sources.iter().map(String::as_str).collect::<Vec<_>>(), "source")?;
        self.connectors.retain(|file| wanted.is_empty() || wanted.contains(&file.config.source));
        Ok(())
    }

    /// Keeps only these models; all of them when none is named. Reading the files again keeps to that.
    pub(crate) fn select_models(&mut self, wanted: &[String]) -> Result<(), Failure> {
        let names = self.models.iter().map(|file| file.model.name.as_str());
        all_known(wanted, &names.collect::<Vec<_>>(), "model")?;
        self.models.retain(|file| wanted.is_empty() || wanted.contains(&file.model.name));
        self.selected_models = wanted.to_vec();
        Ok(())
    }

    /// The connectors' settings alone.
    pub(crate) fn connector_configs(&self) -> Vec<ConnectorConfig> {
        self.connectors.iter().map(|file| file.config.clone()).collect()
    }

    /// The definitions alone.
    pub(crate) fn definitions(&self) -> Vec<ReadModel> {
        self.models.iter().map(|file| file.model.clone()).collect()
    }

    /// What of the API's rules does not fit the models. Who only serves may have no file of a model: what a rule of it
    /// hides is held against the version that is served.
    fn check_access(&self, purpose: Purpose<'_>) -> Vec<Diagnostic> {
        let name = self.file.display().to_string();
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let source = Source { name: &name, text: &text };
        let definitions = self.definitions();
        let all_declared = purpose != Purpose::Serve;
        let mut wrong = self.settings.api.check_models(&definitions, all_declared);
        wrong.extend(self.settings.api.check_channels(&definitions, all_declared));
        wrong.into_iter().map(|(at, message, help)| source.at(at, message, Some(help))).collect()
    }

    fn load_connectors(&mut self, purpose: Purpose<'_>, environment: &Environment) -> Vec<Diagnostic> {
        let (files, mut diagnostics, unlisted) = self.listed(&self.settings.connectors, "connectors");
        diagnostics.extend(unlisted);
        for path in files {
            let name = shown(&path);
            if let Err(wrong) = read_text(&path).and_then(|text| self.load_connector(&name, text, purpose, environment))
            {
                diagnostics.push(wrong);
            }
        }
        diagnostics
    }

    fn load_connector(
        &mut self,
        name: &str,
        text: String,
        purpose: Purpose<'_>,
        environment: &Environment,
    ) -> Result<(), Diagnostic> {
        let source = Source { name, text: &text };
        let (known, config) = match try_read::<ConnectorConfig>(source, environment)? {
            Reading::Done(config) => (config.source.clone(), Some(config)),
            Reading::Unset { told, .. } => match source_name(source, environment) {
                Some(known) if !purpose.reaches(&known) => {
                    self.unasked.push(told);
                    (known, None)
                }
                _ => return Err(told),
            },
        };
        if let Some(config) = &config {
            config.validate().map_err(|error| unfit(source, &error))?;
        }
        if self.sources.contains(&known) {
            let message = format!("a second connector for the source `{known}`");
            let line = 1 + text.lines().position(|line| line.starts_with("source:")).unwrap_or(0);
            return Err(source.diagnostic(line, 1, message, Some("rename one of them".into())));
        }
        self.sources.push(known);
        if let Some(mut config) = config {
            let folder = folder_of(&self.file);
            let tls = &mut config.postgres.tls;
            for path in [&mut tls.ca, &mut tls.cert, &mut tls.key].into_iter().flatten() {
                *path = folder.join(&*path);
            }
            self.connectors.push(ConnectorFile { file: name.to_string(), text, config });
        }
        Ok(())
    }

    /// Reads the model files as they are now.
    pub(crate) fn read_models(&self) -> ModelFiles {
        let (files, unmet, unlisted) = self.listed(&self.settings.models, "models");
        let mut out = ModelFiles { unmet, unlisted, ..ModelFiles::default() };
        let sources = self.sources.iter().map(|source| (source.clone(), DEFAULT_SCHEMA.to_string()));
        let context = ParseContext { sources: sources.collect() };
        for path in files {
            let file = shown(&path);
            let parsed = read_text(&path).map_err(|diagnostic| vec![diagnostic]).and_then(|text| {
                let model = model::parse(&file, &text, &context)?;
                if let Some(first) = out.models.iter().find(|first| first.model.name == model.name) {
                    let message = format!("a second model `{}`; the first is {}", model.name, first.file);
                    let line = 1 + text.lines().position(|line| line.starts_with("model:")).unwrap_or(0);
                    let source = Source { name: &file, text: &text };
                    return Err(vec![source.diagnostic(line, 1, message, Some("rename one of them".into()))]);
                }
                Ok(ModelFile { file: file.clone(), text, model })
            });
            match parsed {
                Ok(file) if !self.is_selected(&file.model.name) => {}
                Ok(model) => out.models.push(model),
                Err(diagnostics) => out.diagnostics.extend(diagnostics),
            }
        }
        out
    }

    fn is_selected(&self, model: &str) -> bool {
        self.selected_models.is_empty() || self.selected_models.iter().any(|name| name == model)
    }

    /// The files that patterns of the configuration file name; what is to be said of those that no file fits, and of those
    /// whose folder cannot be read.
    fn listed(
        &self,
        patterns: &[serde_saphyr::Spanned<String>],
        key: &str,
    ) -> (Vec<PathBuf>, Vec<Diagnostic>, Vec<Diagnostic>) {
        let name = self.file.display().to_string();
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let source = Source { name: &name, text: &text };
        let mut out: Vec<PathBuf> = Vec::new();
        let (mut unmet, mut unlisted) = (Vec::new(), Vec::new());
        for pattern in patterns {
            match files::matching(folder_of(&self.file), &pattern.value) {
                Ok(found) if found.is_empty() => {
                    let message = format!("no file fits `{}`", pattern.value);
                    let help = format!("`{key}` is relative to the folder of this file");
                    unmet.push(source.at(pattern.referenced, message, Some(help)));
                }
                Ok(found) => {
                    for file in found {
                        if !out.contains(&file) {
                            out.push(file);
                        }
                    }
                }
                Err(error) => {
                    let message = format!("cannot look for `{}`: {error}", pattern.value);
                    let help = format!("`{key}` is relative to the folder of this file");
                    unlisted.push(source.at(pattern.referenced, message, Some(help)));
                }
            }
        }
        (out, unmet, unlisted)
    }
}

fn all_known(wanted: &[String], known: &[&str], what: &str) -> Result<(), Failure> {
    let Some(unknown) = wanted.iter().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
    Err(unknown_name(what, unknown, known.iter().copied()))
}

/// There is no such source, or model: status 2, with what there is.
pub(crate) fn unknown_name<'n>(what: &str, given: &str, names: impl IntoIterator<Item = &'n str>) -> Failure {
    Failure::new(format_args!("there is no {what} `{given}`; {}", suggestion(given, names))).with_status(2)
}

/// What a connector's own check found, shown at the key that it names where that is in the file.
fn unfit(source: Source<'_>, error: &headwater_connectors::Error) -> Diagnostic {
    let (line, column) = match error {
        headwater_connectors::Error::Config { path, .. } => source.place_of(path),
        _ => (1, 1),
    };
    source.diagnostic(line, column, error.to_string(), None)
}

fn load_settings(file: &Path, environment: &Environment) -> Result<Settings, Diagnostic> {
    let name = file.display().to_string();
    let text = read_text(file)?;
    let source = Source { name: &name, text: &text };
    let settings: Settings = read(source, environment)?;
    match settings.validate() {
        None => Ok(settings),
        Some((at, message, help)) => Err(source.at(at, message, Some(help))),
    }
}

/// Reads a file, or says what is in its place.
fn read_text(file: &Path) -> Result<String, Diagnostic> {
    std::fs::read_to_string(file).map_err(|error| {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => Some(neighbour(file)),
            _ => None,
        };
        let name = shown(file);
        Source { name: &name, text: "" }.diagnostic(1, 1, format!("cannot read this file: {error}"), help)
    })
}

/// A file of nearly the same name, or how to name the file.
fn neighbour(file: &Path) -> String {
    let wanted = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let names: Vec<String> = std::fs::read_dir(folder_of(file))
        .map(|entries| entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    match nearest(wanted, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{}`?", folder_of(file).join(near).display()),
        None => "name the configuration with --config; examples/billing has one to begin with".to_string(),
    }
}

/// How messages name a file.
fn shown(file: &Path) -> String {
    file.strip_prefix("./").unwrap_or(file).display().to_string()
}

pub(crate) fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod api_tests;
#[cfg(test)]
mod tests;
