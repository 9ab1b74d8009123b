//! Redis: a stream that hands jobs to workers and a channel that tells who waits of changes.
//!
//! It only rings: whatever it loses is found in Postgres again. Never trims the stream by length (that drops entries
//! someone is working on) and never deletes an entry that no one has read (the group's lag would become unknown).

use std::time::Duration;

use futures::{Stream, StreamExt};
use redis::{
    AsyncCommands, AsyncConnectionConfig, Client, Cmd, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection},
    streams::{
        StreamAutoClaimOptions, StreamAutoClaimReply, StreamId, StreamInfoGroupsReply, StreamReadOptions,
        StreamReadReply,
    },
};
use uuid::Uuid;

/// One group: every worker is a consumer of it.
const GROUP: &str = "workers";
const FIELD: &str = "op";
const CONNECT: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(2);

/// A URL that names no Redis server.
#[derive(Debug, thiserror::Error)]
#[error("not a Redis URL")]
pub struct BellError(#[source] redis::RedisError);

/// A Redis server and the keys on it that are ours.
#[derive(Clone)]
pub struct Bell {
    client: Client,
    commands: ConnectionManager,
    stream: String,
    channel: String,
    mark: String,
}

impl std::fmt::Debug for Bell {
    // The client knows a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// An entry of the stream.
pub(crate) struct Entry {
    pub(crate) id: String,
    /// None: not one of ours; it is acknowledged and forgotten.
    pub(crate) operation_id: Option<Uuid>,
}

/// How the workers' group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupState {
    /// Entries that no worker has read; none when Redis can't tell.
    pub(crate) lag: Option<usize>,
    /// Entries read and not yet acknowledged.
    pub(crate) pending: usize,
}

impl Bell {
    /// Keys are `<prefix>:stream`, `<prefix>:mark` and `<prefix>:changes`; the stream's consumer group is `workers`. Connects when first
    /// used, and again after each loss. Needs a Tokio runtime.
    ///
    /// # Errors
    /// When the URL makes no sense.
    pub fn open(url: &str, prefix: &str) -> Result<Self, BellError> {
        let client = Client::open(url).map_err(BellError)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER))
            .set_number_of_retries(1);
        let commands = ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(BellError)?;
        Ok(Self {
            client,
            commands,
            stream: format!("{prefix}:stream"),
            channel: format!("{prefix}:changes"),
            mark: format!("{prefix}:mark"),
        })
    }

    /// Adds an entry for each job.
    pub(crate) async fn announce(&self, operations: &[Uuid]) -> RedisResult<()> {
        let mut pipeline = redis::pipe();
        for id in operations {
            pipeline
                .cmd("XADD")
                .arg(&self.stream)
                .arg("*")
                .arg(FIELD)
                .arg(id.to_string())
                .ignore();
        }
        pipeline.exec_async(&mut self.commands.clone()).await
    }

    /// The group's state; the group is made if it is missing, and then reads from the stream's beginning.
    pub(crate) async fn group(&self) -> RedisResult<GroupState> {
        let mut commands = self.commands.clone();
        let known: RedisResult<StreamInfoGroupsReply> = commands.xinfo_groups(&self.stream).await;
        let group = match known {
            Ok(reply) => reply.groups.into_iter().find(|group| group.name == GROUP),
            // The stream does not exist.
            Err(error) if error.code() == Some("ERR") => None,
            Err(error) => return Err(error),
        };
        if let Some(group) = group {
            return Ok(GroupState {
                lag: group.lag,
                pending: group.pending,
            });
        }
        self.create_group().await?;
        Ok(GroupState {
            lag: Some(self.length().await?),
            pending: 0,
        })
    }

    /// All of the stream's entries, read or not.
    pub(crate) async fn length(&self) -> RedisResult<usize> {
        self.commands.clone().xlen(&self.stream).await
    }

    /// The random name of this Redis, made once: another one than before means that all it knew is gone.
    pub(crate) async fn mark(&self) -> RedisResult<String> {
        let fresh = Uuid::now_v7().simple().to_string();
        let (mark,): (String,) = redis::pipe()
            .cmd("SET")
            .arg(&self.mark)
            .arg(fresh)
            .arg("NX")
            .ignore()
            .cmd("GET")
            .arg(&self.mark)
            .query_async(&mut self.commands.clone())
            .await?;
        Ok(mark)
    }

    async fn create_group(&self) -> RedisResult<()> {
        let made: RedisResult<()> = self
            .commands
            .clone()
            .xgroup_create_mkstream(&self.stream, GROUP, "0")
            .await;
        match made {
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            other => other,
        }
    }

    /// Acknowledges and deletes entries that were read.
    pub(crate) async fn acknowledge(&self, entries: &[String]) -> RedisResult<()> {
        redis::pipe()
            .cmd("XACK")
            .arg(&self.stream)
            .arg(GROUP)
            .arg(entries)
            .ignore()
            .cmd("XDEL")
            .arg(&self.stream)
            .arg(entries)
            .ignore()
            .exec_async(&mut self.commands.clone())
            .await
    }

    /// Says that the entries are still worked on. `JUSTID` keeps their delivery counts.
    pub(crate) async fn touch(&self, consumer: &str, entries: &[String]) -> RedisResult<()> {
        let mut command = redis::cmd("XCLAIM");
        command
            .arg(&self.stream)
            .arg(GROUP)
            .arg(consumer)
            .arg(0)
            .arg(entries)
            .arg("JUSTID");
        command.exec_async(&mut self.commands.clone()).await
    }

    /// Takes over entries that no one has touched for so long.
    pub(crate) async fn take_over(
        &self,
        consumer: &str,
        idle: Duration,
        count: usize,
    ) -> RedisResult<Vec<Entry>> {
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let options = StreamAutoClaimOptions::default().count(count);
        let reply: StreamAutoClaimReply = self
            .commands
            .clone()
            .xautoclaim_options(&self.stream, GROUP, consumer, idle, "0-0", options)
            .await?;
        Ok(reply.claimed.into_iter().map(Entry::from).collect())
    }

    /// Forgets a consumer that has nothing pending.
    pub(crate) async fn forget(&self, consumer: &str) -> RedisResult<()> {
        let mut commands = self.commands.clone();
        let pending: redis::streams::StreamPendingCountReply = commands
            .xpending_consumer_count(&self.stream, GROUP, "-", "+", 1, consumer)
            .await?;
        if pending.ids.is_empty() {
            let _: usize = commands.xgroup_delconsumer(&self.stream, GROUP, consumer).await?;
        }
        Ok(())
    }

    /// Forgets consumers that have done nothing for so long and have nothing pending: workers that were killed.
    pub(crate) async fn forget_idle(&self, idle: Duration) -> RedisResult<()> {
        let mut commands = self.commands.clone();
        let reply: redis::streams::StreamInfoConsumersReply =
            commands.xinfo_consumers(&self.stream, GROUP).await?;
        for consumer in reply.consumers {
            if consumer.pending == 0 && consumer.idle as u128 > idle.as_millis() {
                let _: usize = commands
                    .xgroup_delconsumer(&self.stream, GROUP, &consumer.name)
                    .await?;
            }
        }
        Ok(())
    }

    /// Tells whoever listens that operations changed.
    pub(crate) async fn publish(&self, changes: &[(Uuid, i64)]) -> RedisResult<()> {
        let mut pipeline = redis::pipe();
        for (id, revision) in changes {
            pipeline
                .cmd("PUBLISH")
                .arg(&self.channel)
                .arg(format!("{id} {revision}"))
                .ignore();
        }
        pipeline.exec_async(&mut self.commands.clone()).await
    }

    /// Changes from now on, until the connection breaks.
    pub(crate) async fn changes(&self) -> RedisResult<impl Stream<Item = (Uuid, i64)> + Send + use<>> {
        let subscribed = async {
            let mut pubsub = self.client.get_async_pubsub().await?;
            pubsub.subscribe(&self.channel).await?;
            Ok::<_, redis::RedisError>(pubsub)
        };
        let pubsub = match tokio::time::timeout(ANSWER, subscribed).await {
            Ok(subscribed) => subscribed?,
            Err(_) => return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        };
        Ok(pubsub.into_on_message().filter_map(|message| async move {
            let payload: String = message.get_payload().ok()?;
            let (id, revision) = payload.split_once(' ')?;
            Some((id.parse().ok()?, revision.parse().ok()?))
        }))
    }

    /// A connection that waits for entries.
    pub(crate) async fn reader(&self, consumer: &str, block: Duration) -> RedisResult<Reader> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(block + ANSWER));
        let mut connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let client_id: i64 = Cmd::new()
            .arg("CLIENT")
            .arg("ID")
            .query_async(&mut connection)
            .await?;
        Ok(Reader {
            bell: self.clone(),
            connection,
            client_id,
            consumer: consumer.to_owned(),
            block,
        })
    }

    /// Ends a reader's wait, so that a worker that stops need not wait for it.
    pub(crate) async fn unblock(&self, client_id: i64) -> RedisResult<()> {
        Cmd::new()
            .arg("CLIENT")
            .arg("UNBLOCK")
            .arg(client_id)
            .exec_async(&mut self.commands.clone())
            .await
    }
}

/// A connection of its own, since a blocking read holds up all that comes after it.
pub(crate) struct Reader {
    bell: Bell,
    connection: MultiplexedConnection,
    pub(crate) client_id: i64,
    consumer: String,
    block: Duration,
}

impl Reader {
    /// Up to `count` new entries; none after the block time. Not cancel-safe: entries read by a dropped call stay
    /// pending until they are taken over.
    pub(crate) async fn read(&mut self, count: usize) -> RedisResult<Vec<Entry>> {
        let block = usize::try_from(self.block.as_millis()).unwrap_or(usize::MAX);
        let options = StreamReadOptions::default()
            .group(GROUP, &self.consumer)
            .count(count)
            .block(block);
        let read: RedisResult<Option<StreamReadReply>> = self
            .connection
            .xread_options(&[&self.bell.stream], &[">"], &options)
            .await;
        match read {
            Ok(reply) => Ok(reply
                .into_iter()
                .flat_map(|reply| reply.keys)
                .flat_map(|key| key.ids)
                .map(Entry::from)
                .collect()),
            // A wiped Redis has lost the group; its entries, too, which the sweeper announces again.
            Err(error) if error.code() == Some("NOGROUP") => {
                self.bell.create_group().await?;
                Ok(Vec::new())
            }
            // `CLIENT UNBLOCK` and a deleted stream end the wait.
            Err(error) if error.code() == Some("UNBLOCKED") => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

impl From<StreamId> for Entry {
    fn from(entry: StreamId) -> Self {
        let operation_id = entry.get::<String>(FIELD).and_then(|id| id.parse().ok());
        Self {
            id: entry.id,
            operation_id,
        }
    }
}
