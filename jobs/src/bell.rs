//! Redis: streams that hand jobs to workers, one a priority, and a channel that tells who waits of changes.
//!
//! It only rings: whatever it loses is found in Postgres again. Never trims a stream by length (that drops entries
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

use crate::entity::job::Priority;

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
    interactive: String,
    scheduled: String,
    channel: String,
    mark: String,
}

impl std::fmt::Debug for Bell {
    // The client knows a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell")
            .field("stream", &self.interactive)
            .finish_non_exhaustive()
    }
}

/// Which entry of which stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryId {
    pub(crate) stream: Priority,
    id: String,
}

/// An entry of a stream.
pub(crate) struct Entry {
    pub(crate) id: EntryId,
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
    /// Keys are `<prefix>:stream`, `<prefix>:stream:scheduled`, `<prefix>:mark` and `<prefix>:changes`; the streams' consumer
    /// group is `workers`. Connects when first used, and again after each loss. Needs a Tokio runtime.
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
            interactive: format!("{prefix}:stream"),
            scheduled: format!("{prefix}:stream:scheduled"),
            channel: format!("{prefix}:changes"),
            mark: format!("{prefix}:mark"),
        })
    }

    const fn stream(&self, priority: Priority) -> &String {
        match priority {
            Priority::Interactive => &self.interactive,
            Priority::Scheduled => &self.scheduled,
        }
    }

    /// Adds an entry for each job.
    pub(crate) async fn announce(&self, operations: &[(Uuid, Priority)]) -> RedisResult<()> {
        let mut pipeline = redis::pipe();
        for (id, priority) in operations {
            pipeline
                .cmd("XADD")
                .arg(self.stream(*priority))
                .arg("*")
                .arg(FIELD)
                .arg(id.to_string())
                .ignore();
        }
        pipeline.exec_async(&mut self.commands.clone()).await
    }

    /// The state of a stream's group; the group is made if it is missing, and then reads from the stream's beginning.
    pub(crate) async fn group(&self, stream: Priority) -> RedisResult<GroupState> {
        let mut commands = self.commands.clone();
        let known: RedisResult<StreamInfoGroupsReply> = commands.xinfo_groups(self.stream(stream)).await;
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
        self.create_group(stream).await?;
        Ok(GroupState {
            lag: Some(self.length(stream).await?),
            pending: 0,
        })
    }

    /// All of a stream's entries, read or not.
    pub(crate) async fn length(&self, stream: Priority) -> RedisResult<usize> {
        self.commands.clone().xlen(self.stream(stream)).await
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

    async fn create_group(&self, stream: Priority) -> RedisResult<()> {
        let made: RedisResult<()> = self
            .commands
            .clone()
            .xgroup_create_mkstream(self.stream(stream), GROUP, "0")
            .await;
        match made {
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            other => other,
        }
    }

    /// Makes the groups that are missing.
    pub(crate) async fn create_groups(&self) -> RedisResult<()> {
        for stream in Priority::ALL {
            self.create_group(stream).await?;
        }
        Ok(())
    }

    /// Acknowledges and deletes an entry that was read.
    pub(crate) async fn acknowledge(&self, entry: &EntryId) -> RedisResult<()> {
        let stream = self.stream(entry.stream);
        redis::pipe()
            .cmd("XACK")
            .arg(stream)
            .arg(GROUP)
            .arg(&entry.id)
            .ignore()
            .cmd("XDEL")
            .arg(stream)
            .arg(&entry.id)
            .ignore()
            .exec_async(&mut self.commands.clone())
            .await
    }

    /// Says that the entries are still worked on. `JUSTID` keeps their delivery counts.
    pub(crate) async fn touch(&self, consumer: &str, entries: &[EntryId]) -> RedisResult<()> {
        let mut pipeline = redis::pipe();
        for stream in Priority::ALL {
            let of_it = entries.iter().filter(|entry| entry.stream == stream);
            let ids: Vec<_> = of_it.map(|entry| entry.id.as_str()).collect();
            if ids.is_empty() {
                continue;
            }
            pipeline
                .cmd("XCLAIM")
                .arg(self.stream(stream))
                .arg(GROUP)
                .arg(consumer)
                .arg(0)
                .arg(ids)
                .arg("JUSTID")
                .ignore();
        }
        pipeline.exec_async(&mut self.commands.clone()).await
    }

    /// Takes over entries of a stream that no one has touched for so long.
    pub(crate) async fn take_over(
        &self,
        stream: Priority,
        consumer: &str,
        idle: Duration,
        count: usize,
    ) -> RedisResult<Vec<Entry>> {
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let options = StreamAutoClaimOptions::default().count(count);
        let reply: StreamAutoClaimReply = self
            .commands
            .clone()
            .xautoclaim_options(self.stream(stream), GROUP, consumer, idle, "0-0", options)
            .await?;
        Ok(reply
            .claimed
            .into_iter()
            .map(|entry| Entry::of(stream, entry))
            .collect())
    }

    /// Forgets a consumer where it has nothing pending.
    pub(crate) async fn forget(&self, consumer: &str) -> RedisResult<()> {
        let mut commands = self.commands.clone();
        for priority in Priority::ALL {
            let stream = self.stream(priority);
            let pending: redis::streams::StreamPendingCountReply = commands
                .xpending_consumer_count(stream, GROUP, "-", "+", 1, consumer)
                .await?;
            if pending.ids.is_empty() {
                let _: usize = commands.xgroup_delconsumer(stream, GROUP, consumer).await?;
            }
        }
        Ok(())
    }

    /// Forgets consumers that have done nothing for so long and have nothing pending: workers that were killed.
    pub(crate) async fn forget_idle(&self, idle: Duration) -> RedisResult<()> {
        let mut commands = self.commands.clone();
        for priority in Priority::ALL {
            let stream = self.stream(priority);
            let reply: redis::streams::StreamInfoConsumersReply =
                commands.xinfo_consumers(stream, GROUP).await?;
            for consumer in reply.consumers {
                if consumer.pending == 0 && consumer.idle as u128 > idle.as_millis() {
                    let _: usize = commands.xgroup_delconsumer(stream, GROUP, &consumer.name).await?;
                }
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
    /// Up to `count` new entries of a stream, if it has any now.
    pub(crate) async fn take(&mut self, stream: Priority, count: usize) -> RedisResult<Vec<Entry>> {
        self.read(&[stream], count, StreamReadOptions::default()).await
    }

    /// Up to `count` new entries of each stream, as soon as one has any; none after the block time. Not cancel-safe:
    /// entries read by a dropped call stay pending until they are taken over.
    pub(crate) async fn wait(&mut self, count: usize) -> RedisResult<Vec<Entry>> {
        let block = usize::try_from(self.block.as_millis()).unwrap_or(usize::MAX);
        let options = StreamReadOptions::default().block(block);
        self.read(&Priority::ALL, count, options).await
    }

    async fn read(
        &mut self,
        streams: &[Priority],
        count: usize,
        options: StreamReadOptions,
    ) -> RedisResult<Vec<Entry>> {
        let options = options.group(GROUP, &self.consumer).count(count);
        let keys: Vec<_> = streams.iter().map(|stream| self.bell.stream(*stream)).collect();
        let read: RedisResult<Option<StreamReadReply>> = self
            .connection
            .xread_options(&keys, &vec![">"; keys.len()], &options)
            .await;
        match read {
            Ok(reply) => {
                let mut entries = Vec::new();
                for read in reply.into_iter().flat_map(|reply| reply.keys) {
                    let of = streams
                        .iter()
                        .find(|stream| *self.bell.stream(**stream) == read.key);
                    if let Some(stream) = of {
                        entries.extend(read.ids.into_iter().map(|entry| Entry::of(*stream, entry)));
                    }
                }
                Ok(entries)
            }
            // A wiped Redis has lost the groups; its entries, too, which the sweeper announces again.
            Err(error) if error.code() == Some("NOGROUP") => {
                self.bell.create_groups().await?;
                Ok(Vec::new())
            }
            // `CLIENT UNBLOCK` and a deleted stream end the wait.
            Err(error) if error.code() == Some("UNBLOCKED") => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

impl Entry {
    fn of(stream: Priority, entry: StreamId) -> Self {
        let operation_id = entry.get::<String>(FIELD).and_then(|id| id.parse().ok());
        Self {
            id: EntryId { stream, id: entry.id },
            operation_id,
        }
    }
}
