//! Files to and from the guest.

use agent_protocol::message::GuestPath;
use agent_protocol::{CHUNK, Event, Input, Reply, Request};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::talk::Next;
use super::{AgentError, Client, Deadline};

/// Content of a file of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The bytes asked for, or as many as there are.
    pub bytes: Vec<u8>,
    /// Permission bits of the file.
    pub mode: u32,
}

impl Client {
    /// Writes a file of the guest: afterwards it is there in full and on the disk, or as it was.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn put_file(
        &self,
        path: impl Into<GuestPath>,
        mode: u32,
        content: &[u8],
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        self.put_stream(path, mode, content, deadline)
            .await?
            .map_err(|error| unreachable!("memory can always be read: {error}"))
    }

    /// [`Client::put_file`] from a stream. The inner error is of reading that; the guest's file is
    /// then as it was.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn put_stream(
        &self,
        path: impl Into<GuestPath>,
        mode: u32,
        mut content: impl AsyncRead + Unpin,
        deadline: impl Into<Deadline>,
    ) -> Result<std::io::Result<()>, AgentError> {
        let mut talk = self
            .begin(
                Request::PutFile {
                    path: path.into(),
                    mode,
                },
                deadline,
            )
            .await?;
        let input = talk.input();
        let sending = async {
            let mut buffer = vec![0; CHUNK];
            loop {
                let count = match content.read(&mut buffer).await {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) => return Err(error),
                };
                // The agent may refuse half-way; its reply says why.
                if input
                    .send(Input::Data(buffer[..count].to_vec().into()))
                    .await
                    .is_err()
                {
                    return Ok(());
                }
            }
            let _ = input.send(Input::End).await;
            Ok(())
        };
        tokio::pin!(sending);
        let mut sent = false;
        loop {
            let next = tokio::select! {
                next = talk.next() => next?,
                result = &mut sending, if !sent => match result {
                    Ok(()) => {
                        sent = true;
                        continue;
                    }
                    Err(error) => return Ok(Err(error)),
                },
            };
            return match next {
                Next::Reply(Reply::Transferred { .. }) => Ok(Ok(())),
                other => Err(talk.unfit(&other)),
            };
        }
    }

    /// Reads a file of the guest, of at most `most` bytes.
    ///
    /// # Errors
    /// See [`AgentError`]; [`AgentError::TooLarge`] when there is more.
    pub async fn get_file(
        &self,
        path: impl Into<GuestPath>,
        most: u64,
        deadline: impl Into<Deadline>,
    ) -> Result<Content, AgentError> {
        self.get(path.into(), 0, None, most, deadline.into()).await
    }

    /// Reads `length` bytes from `offset` on, fewer where the file ends before.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn get_range(
        &self,
        path: impl Into<GuestPath>,
        offset: u64,
        length: u64,
        deadline: impl Into<Deadline>,
    ) -> Result<Content, AgentError> {
        self.get(path.into(), offset, Some(length), length, deadline.into())
            .await
    }

    async fn get(
        &self,
        path: GuestPath,
        offset: u64,
        limit: Option<u64>,
        most: u64,
        deadline: Deadline,
    ) -> Result<Content, AgentError> {
        let mut talk = self
            .begin(
                Request::GetFile {
                    path,
                    offset,
                    limit,
                },
                deadline,
            )
            .await?;
        let mut bytes = Vec::new();
        loop {
            match talk.next().await? {
                Next::Event(Event::Data(more)) => bytes.extend_from_slice(&more.0),
                Next::Reply(Reply::Transferred { mode, .. }) => return Ok(Content { bytes, mode }),
                other => return Err(talk.unfit(&other)),
            }
            if bytes.len() as u64 > most {
                return Err(talk.too_large(most));
            }
        }
    }
}
