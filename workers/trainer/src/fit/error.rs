//! Why a fit fails.

/// Why no model can be fitted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FitError {
    /// All rides have the same label, or there are no rides.
    #[error("{services} of {rides} rides to train on ended in a service request: expected some with and some without")]
    OneClassOnly {
        /// Rides to train on.
        rides: usize,
        /// … with a service request.
        services: usize,
    },
    /// The mean or the standard deviation of this feature is not finite.
    #[error("{0} has values too large to compute with")]
    OutOfRange(&'static str),
    /// There is no unique optimum, or Newton's method did not reach it.
    #[error(
        "no optimum after {steps} steps (gradient {gradient_norm:e}): the features separate the classes, or one is a \
         combination of others; an alpha above 0 makes the solution unique (alpha = {alpha})"
    )]
    NotConverged {
        /// Newton steps taken.
        steps: usize,
        /// Largest absolute component of the gradient at the last step.
        gradient_norm: f64,
        /// L2 penalty of this fit.
        alpha: f64,
    },
    /// Cancellation was requested.
    #[error("cancelled")]
    Cancelled,
}
