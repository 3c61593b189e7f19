//! What the programs count, read when somebody asks.

use std::fmt;

use portolan_abi::Outcome;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

type Read = dyn Fn() -> [u64; Outcome::ALL.len()] + Send + Sync;

/// `portolan_outcomes_total{outcome}`.
pub(super) struct Outcomes(Box<Read>);

impl Outcomes {
    pub(super) fn new(read: impl Fn() -> [u64; Outcome::ALL.len()] + Send + Sync + 'static) -> Self {
        Self(Box::new(read))
    }
}

impl fmt::Debug for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outcomes")
    }
}

impl Collector for Outcomes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(
            "portolan_outcomes",
            "What became of connections and datagrams to Services.",
            None,
            MetricType::Counter,
        )?;
        for (outcome, count) in Outcome::ALL.into_iter().zip((self.0)()) {
            let labels = [("outcome", outcome.name())];
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
