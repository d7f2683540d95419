//! The cryptography of TLS.

/// Installs the cryptography of every TLS client and server of this process. Call it before one is built: they know no other by
/// themselves. Further calls do nothing.
pub fn install_cryptography() {
    // Fails if the process has a provider already, which is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
