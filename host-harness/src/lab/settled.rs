//! The settled guest a check starts with: a fork that is got to know, and what it owes in the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clock::HOST_TROUBLE;

use super::{Failure, Guest, Instead, Lab, ledger, live, subject};
use crate::checks::Start;

/// How long findings are told as they come: a guest can wait for its module for a day.
const LISTENING: Duration = Duration::from_secs(24 * 3600);

impl Lab {
    /// Brings up what the check's row asks for, so that its deadline counts only its own work.
    ///
    /// # Errors
    /// When the image does not come up or settle.
    pub async fn prepare(&mut self) -> Result<(), Failure> {
        if self.settled.is_some() {
            return Ok(());
        }
        let begin = Instant::now();
        if self.check.start == Start::Settled {
            let snapshot = self.setup.snapshot().await?;
            let fork = snapshot.fork(self.check.name, &self.logs()).await?;
            self.spent.machine = fork.timing.ready;
            let troubles = fork.troubles.into_iter();
            let told = troubles.map(|trouble| (HOST_TROUBLE.to_owned(), trouble));
            self.facts.extend(told);
            let machine = Arc::new(fork.machine);
            self.machines.add(machine.clone());
            let guest = Guest::new(machine, fork.agent, self.deadline());
            self.seen.push(guest.clone());
            if !matches!(self.instead, Instead::Own) {
                subject::take_out(&guest, &self.source().module).await?;
            }
            let loaded = match &self.instead {
                Instead::Loaded(subject) => Some(subject.clone()),
                _ => None,
            };
            let before = match loaded {
                Some(subject) => {
                    tokio::try_join!(guest.get_to_know(), guest.mark())?;
                    self.follow(&guest).await;
                    subject::load(&subject, &guest).await?;
                    ledger::take(&guest, self.source()).await?
                }
                None => {
                    // All under way at once: one round trip under emulation costs what they all do.
                    let ((), (), before) = tokio::try_join!(
                        guest.get_to_know(),
                        guest.mark(),
                        ledger::take(&guest, self.source())
                    )?;
                    self.follow(&guest).await;
                    before
                }
            };
            self.point("start", &guest).await?;
            self.settled = Some((guest, before));
        }
        let seconds = format!("{:.3}", begin.elapsed().as_secs_f64());
        self.facts.push(("ready-seconds".into(), seconds));
        Ok(())
    }

    /// Begins to listen for whoever wants to hear findings as they come.
    async fn follow(&mut self, guest: &Guest) {
        if let Some(listener) = self.listener.clone() {
            let (mark, expected) = (guest.marked(), self.check.expectations());
            let live = live::Live::follow(guest, mark, expected, LISTENING, listener);
            self.live = Some(live.await);
        }
    }

    /// The settled guest.
    ///
    /// # Errors
    /// When the check's row asks for none: the row is wrong then, not the image.
    pub async fn guest(&mut self) -> Result<Guest, Failure> {
        match &self.settled {
            Some((guest, _)) => Ok(guest.clone()),
            None => Err(Failure::Ours(format!(
                "check `{}` declares no settled guest",
                self.check.name
            ))),
        }
    }

    /// Asks the settled guest, if there is one, what the story has not given back. For a story that
    /// was told to its end: what one leaves that broke off is no leak.
    ///
    /// # Errors
    /// When the guest does not answer any more.
    pub async fn balance(&mut self) -> Result<(), Failure> {
        if let Some((guest, before)) = &self.settled {
            self.leaks = ledger::balance(guest, self.source(), before).await?;
            // The distribution's kernels do not have it: no program runs there to find that out.
            if self.setup.kernel().compiled.is_some() {
                ledger::look_for_forgotten_memory(guest).await?;
            }
        }
        Ok(())
    }
}
