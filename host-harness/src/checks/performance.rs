//! Performance: what VexFS costs beside ext4, held against earlier runs on this kind of host.

use results::figures::standing;
use results::figures::standing::Standing;

use crate::lab::{Boot, Failure, Lab};
use crate::perf::beside_ext4;

/// fio's and the search's figures on this image beside the stored ones of its kind of host; each is a
/// case of the report. The guest's clock counts instructions under emulation, so that another
/// machine at work on this host changes nothing.
pub async fn beside_the_stored(lab: &mut Lab) -> Result<(), Failure> {
    let rounds = lab.count("performance")?;
    let guest = lab.boot(Boot::invited().counting_instructions()).await?;
    guest.settle().await?;
    let infrastructure = Failure::Host;
    let host = lab.fingerprint();
    let path = Standing::path(lab.cache(), &host);
    let mut stored = Standing::read(&path, &host).map_err(infrastructure)?;
    let now = beside_ext4(&guest, lab.source(), rounds).await?;
    if lab.breaks("stored") {
        stored.twice_as_good(&now);
    }
    let margin = standing::margin(&lab.accelerator().to_string()).map_err(infrastructure)?;
    let judged = stored.judge(&now, margin);
    let good = judged.iter().all(|(_, outcome)| outcome.is_ok());
    for (name, outcome) in judged {
        lab.fact(
            &format!("cost-beside-peer-{name}"),
            format!("{:.3}", now[&name]),
        );
        lab.part(name, outcome);
    }
    lab.fact("stored-runs", stored.len());
    lab.fact("host-kind", host.kind());
    if good && !lab.breaks("stored") {
        stored.keep(&path, &host, now).map_err(infrastructure)?;
    }
    guest.power_off().await
}
