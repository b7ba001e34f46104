//! What a figure depends on besides what was measured.

use image_builder::Image;
use results::figures::Fingerprint;

use crate::host::Host;

/// Of this host and that image.
pub fn fingerprint(host: &Host, image: &Image) -> Fingerprint {
    let manifest = &image.manifest;
    Fingerprint {
        host: host.kind(),
        guest_kernel: manifest.kernel.release.clone(),
        image_sha256: manifest.disk.sha256.clone(),
        variant: manifest.variant.clone(),
    }
}
