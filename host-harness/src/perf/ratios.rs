//! What work costs on the file system under test, as a multiple of what it costs the peer.

use results::figures::standing::Ratios;

use super::workbench::Done;

/// What a round of VexFS and of its peer comes to.
pub(crate) fn ratios(ours: &Done, peer: &Done) -> Ratios {
    let theirs = peer.costs();
    let mut ratios: Ratios = ours
        .costs()
        .into_iter()
        .filter_map(|(name, cost)| Some((name.clone(), cost / theirs.get(&name)?)))
        .collect();
    if let Some(times) = ours.vectors
        && let Some(there) = times.in_user_space
    {
        ratios.insert("vector/search".into(), times.search / there);
    }
    ratios
}
