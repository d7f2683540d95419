//! The loss of one prediction.

/// Negative log-likelihood of a ride with these log-odds of service.
pub fn log_loss(log_odds: f64, service: bool) -> f64 {
    softplus(if service { -log_odds } else { log_odds })
}

/// `ln(1 + exp(z))`, without overflow: the loss of a ride whose log-odds point the wrong way by `z`.
pub fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}
