//! EMPG around any base estimator.

use crate::baseline::Advantage;
use crate::credit::Credit;
use crate::error::AdvantageError;
use crate::modulation::EmpgOptions;
use crate::trajectory::Batch;

/// Modulates the credit of a base estimator by step entropy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Empg<A> {
    /// Gives every trajectory its base advantage.
    pub base: A,
    /// How that is modulated.
    pub options: EmpgOptions,
}

impl<A: Advantage> Advantage for Empg<A> {
    fn assign(&self, batch: &Batch) -> Result<Credit, AdvantageError> {
        self.options.validate()?;
        let base = self.base.assign(batch)?;
        let steps = self.options.modulate(&base.table()?)?;
        base.with_steps(steps)
    }
}
