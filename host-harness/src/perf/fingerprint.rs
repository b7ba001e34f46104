//! What a figure depends on besides what was measured.

use image::Image;
use machine::Host;
use results::figures::Fingerprint;

use crate::host::kind_of;

/// Of this host and that image.
pub fn fingerprint(host: &Host, image: &Image) -> Fingerprint {
    let manifest = &image.manifest;
    Fingerprint {
        host: kind_of(host),
        guest_kernel: manifest.kernel.release.clone(),
        image_sha256: manifest.disk.sha256.clone(),
        variant: manifest.variant.clone(),
    }
}
