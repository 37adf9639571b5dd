//! Channels beside the versions that are served: how each fits, and what is told of what does not.

use std::sync::Arc;

use headwater_schemas::model::ModelShape;

use super::choose::{Channel, Channels};
use super::fit::{Fitted, Place};

/// Something of a channel that does not fit a version that is served. The channel serves the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChannelProblem {
    /// The channel.
    pub(crate) channel: Arc<str>,
    /// The model.
    pub(crate) model: String,
    /// Version number the model's author gave it.
    pub(crate) version: u32,
    /// What does not fit.
    pub(crate) problem: String,
    /// The remedy.
    pub(crate) remedy: String,
}

/// Every channel as it fits a version.
pub(crate) fn fit_all(
    channels: &Channels,
    shape: &ModelShape,
    problems: &mut Vec<ChannelProblem>,
) -> Vec<Option<Arc<Fitted>>> {
    let mut one = |of: &Channel| {
        let (fitted, misfits) = Fitted::new(&of.name, &of.options, shape);
        for misfit in misfits {
            let at = match &misfit.place {
                Place::Field(number) => {
                    let field = of.options.of(&shape.model).and_then(|of| of.fields.get(*number));
                    field.map(|field| format!("`{field}`: ")).unwrap_or_default()
                }
                Place::Rename(path) => format!("the new name of `{path}`: "),
            };
            let problem = format!("{at}{}", misfit.message);
            problems.push(ChannelProblem {
                channel: of.name.clone(),
                model: shape.model.clone(),
                version: shape.version,
                problem,
                remedy: misfit.help,
            });
        }
        fitted
    };
    channels.all().map(|(_, of)| one(of)).collect()
}

/// Logs those problems that are not among what was told `before`.
pub(crate) fn tell_problems(problems: &[ChannelProblem], before: &[ChannelProblem]) {
    for of in problems.iter().filter(|of| !before.contains(of)) {
        let ChannelProblem { channel, model, version, problem, remedy } = of;
        tracing::warn!(
            channel = &**channel,
            model,
            version,
            problem,
            remedy,
            "a channel does not fit a model; it serves the rest"
        );
    }
}
