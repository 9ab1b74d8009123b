//! Tasks: containers of a pool that end by themselves and are then removed.

use bollard::container::LogOutput;
use bollard::query_parameters::{CreateContainerOptionsBuilder, LogsOptionsBuilder, WaitContainerOptions};
use futures::StreamExt as _;

use super::{DockerRuntime, RuntimeError, call, engine_error};
use crate::names::PoolId;
use crate::runtime::{PoolSpec, TaskOutcome, TaskSpec, control};

/// Lines of a task's log that are kept.
const LOG_LINES: usize = 200;

impl DockerRuntime {
    pub(super) fn task_name(&self, pool: PoolId, name: &str) -> String {
        self.name(pool, &format!("task-{name}"))
    }

    /// Runs the task after ending what is left of an earlier run of the same name.
    pub(super) async fn run_to_the_end(
        &self,
        pool: &PoolSpec,
        task: &TaskSpec,
    ) -> Result<TaskOutcome, RuntimeError> {
        let name = self.task_name(pool.pool, &task.name);
        self.remove_container(&name, false).await?;
        let arguments = control::task_arguments(&task.command);
        let body = self
            .odoo_container(pool, "task", pool.limits.cron, arguments)
            .await?;
        let docker = self.docker().await?;
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        call(
            "making a task's container",
            docker.create_container(Some(options), body),
        )
        .await?;
        self.start_container(&name).await?;
        let ended = tokio::time::timeout(task.deadline, self.wait_for_end(&name)).await;
        let log = self.last_lines(&name).await;
        self.remove_container(&name, false).await?;
        match ended {
            Ok(exit) => Ok(TaskOutcome {
                exit: exit?,
                log: log?,
            }),
            Err(_) => {
                if let Ok(log) = log {
                    tracing::warn!(task = task.name, log, "a task was ended at its deadline");
                }
                Err(RuntimeError::Deadline {
                    doing: format!("task {}", task.name),
                    after: task.deadline,
                })
            }
        }
    }

    async fn wait_for_end(&self, name: &str) -> Result<i64, RuntimeError> {
        let docker = self.docker().await?;
        let mut ends = std::pin::pin!(docker.wait_container(name, None::<WaitContainerOptions>));
        match ends.next().await {
            Some(Ok(end)) => Ok(end.status_code),
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(engine_error("waiting for a task", error)),
            // The engine closed the connection: it restarts, or the container was removed by a later run.
            None => Err(engine_error(
                "waiting for a task",
                bollard::errors::Error::RequestTimeoutError,
            )),
        }
    }

    async fn last_lines(&self, name: &str) -> Result<String, RuntimeError> {
        let docker = self.docker().await?;
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .tail(&LOG_LINES.to_string())
            .build();
        let read = async {
            let mut lines = std::pin::pin!(docker.logs(name, Some(options)));
            let mut text = String::new();
            while let Some(line) = lines.next().await {
                let (LogOutput::StdErr { message }
                | LogOutput::StdOut { message }
                | LogOutput::StdIn { message }
                | LogOutput::Console { message }) = line?;
                text.push_str(&String::from_utf8_lossy(&message));
            }
            Ok(text)
        };
        call("reading a task's log", read).await
    }
}
