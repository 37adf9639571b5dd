//! The nearest correct name for a mistyped one, which the compiler's messages do not have.

use apollo_compiler::Schema;
use apollo_compiler::schema::ExtendedType;

/// The name that was probably meant, from the compiler's message: it quotes the mistyped name and where it would have
/// to stand. The messages are not part of the compiler's interface, so a message that reads otherwise gets no help.
pub(super) fn nearest<'s>(message: &str, schema: &'s Schema) -> Option<&'s str> {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if message.contains("does not have a field") {
        let [of, name] = quoted[..] else { return None };
        return headwater_schemas::nearest(name, fields(schema, of)?);
    }
    if message.contains("is not supported by") {
        let [name, of] = quoted[..] else { return None };
        let (of, field) = of.split_once('.')?;
        let field = schema.type_field(of, field).ok()?;
        return headwater_schemas::nearest(name, field.arguments.iter().map(|argument| argument.name.as_str()));
    }
    if message.contains("does not exist on") {
        let [name, of] = quoted[..] else { return None };
        return headwater_schemas::nearest(name, fields(schema, of)?);
    }
    None
}

fn fields<'s>(schema: &'s Schema, of: &str) -> Option<Vec<&'s str>> {
    Some(match schema.types.get(of)? {
        ExtendedType::Object(object) => object.fields.keys().map(|name| name.as_str()).collect(),
        ExtendedType::InputObject(input) => input.fields.keys().map(|name| name.as_str()).collect(),
        ExtendedType::Enum(of) => of.values.keys().map(|name| name.as_str()).collect(),
        _ => return None,
    })
}
