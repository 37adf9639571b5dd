//! What alarms are made of and only the process as a whole knows: gauges that are read when the metrics are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use headwater_projector::ProjectorHandle;
use headwater_query_api::Admin;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::control::Control;

/// The state of a process, as the status tells it.
pub(crate) struct StateGauges(pub(crate) Arc<Control>);

impl fmt::Debug for StateGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StateGauges").finish_non_exhaustive()
    }
}

impl Collector for StateGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: u64| {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        gauge("headwater_ready", "1 while the process does what it is there for", u64::from(self.0.ready().is_ok()))?;
        let Some(projector) = self.0.projector.as_ref().map(ProjectorHandle::status) else { return Ok(()) };
        let help = "Dead letters that no retry has resolved";
        gauge("headwater_dead_letters_unresolved", help, projector.dead_letters)?;
        // A model may have two versions: one that serves, and one that is built.
        let mut troubled: BTreeMap<String, bool> = BTreeMap::new();
        for model in projector.models {
            *troubled.entry(model.model).or_default() |= model.problem.is_some();
        }
        let help = "1 while something is wrong with a version of the model; the status tells what";
        let mut family = encoder.encode_descriptor("headwater_model_problem", help, None, MetricType::Gauge)?;
        for (model, is_troubled) in troubled {
            let labels = [("model", model)];
            ConstGauge::new(u64::from(is_troubled)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
