//! The pool's containers: looked at, looked into, restarted.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::{ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, RestartContainerOptionsBuilder,
};
use futures::StreamExt as _;

use crate::place::Place;

/// The container engine, and which of its containers are this platform's.
#[derive(Debug)]
pub struct Containers {
    /// The engine.
    pub docker: Docker,
    instance: String,
}

impl Containers {
    /// Connects.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn connect() -> Result<Self> {
        let place = Place::get();
        let docker = Docker::connect_with_unix(&place.docker_host, 120, bollard::API_DEFAULT_VERSION)?;
        Ok(Self {
            docker: docker.negotiate_version().await?,
            instance: place.setting("PLATFORM_INSTANCE").to_owned(),
        })
    }

    /// All containers with the platform's label, those that have ended too.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn ours(&self) -> Result<Vec<ContainerSummary>> {
        let filters = HashMap::from([(
            "label".to_owned(),
            vec![format!("platform.instance={}", self.instance)],
        )]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        Ok(self.docker.list_containers(Some(options)).await?)
    }

    /// The container of a role: `web`, `gevent` or `cron`.
    ///
    /// # Errors
    /// There is none.
    pub async fn of_role(&self, role: &str) -> Result<ContainerInspectResponse> {
        let all = self.ours().await?;
        let found = all.into_iter().find(|container| {
            container
                .labels
                .as_ref()
                .and_then(|labels| labels.get("platform.role"))
                .is_some_and(|label| label == role)
        });
        let id = found
            .and_then(|container| container.id)
            .with_context(|| format!("there is no {role} container"))?;
        Ok(self
            .docker
            .inspect_container(&id, None::<InspectContainerOptions>)
            .await?)
    }

    /// Restarts the container of a role, as its engine would after a crash.
    ///
    /// # Errors
    /// The engine does not.
    pub async fn restart(&self, role: &str) -> Result<()> {
        let id = self.of_role(role).await?.id.context("a container has an id")?;
        let options = RestartContainerOptionsBuilder::default().t(30).build();
        Ok(self.docker.restart_container(&id, Some(options)).await?)
    }

    /// Runs Python inside the container of a role, as Odoo's own user, and answers what it prints.
    ///
    /// # Errors
    /// It ends with an error.
    pub async fn python(&self, role: &str, script: &str) -> Result<String> {
        let container = self.of_role(role).await?.id.context("a container has an id")?;
        self.python_in(&container, script).await
    }

    /// Runs Python inside a container.
    ///
    /// # Errors
    /// It ends with an error.
    pub async fn python_in(&self, container: &str, script: &str) -> Result<String> {
        let (exit, output) = self.execute(container, &["python3", "-c", script]).await?;
        ensure!(exit == 0, "exit code {exit}: {output}");
        Ok(output.trim().to_owned())
    }

    /// Runs a program inside a container: its exit code and all that it prints.
    ///
    /// # Errors
    /// The engine does not run it.
    pub async fn execute(&self, container: &str, command: &[&str]) -> Result<(i64, String)> {
        let options = CreateExecOptions {
            cmd: Some(command.to_vec()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        let run = async {
            let exec = self.docker.create_exec(container, options).await?.id;
            let mut text = String::new();
            if let StartExecResults::Attached { mut output, .. } = self.docker.start_exec(&exec, None).await?
            {
                while let Some(line) = output.next().await {
                    text.push_str(&line?.to_string());
                }
            }
            let exit = self
                .docker
                .inspect_exec(&exec)
                .await?
                .exit_code
                .context("no exit code")?;
            anyhow::Ok((exit, text))
        };
        tokio::time::timeout(Duration::from_secs(120), run)
            .await
            .context("the program does not end")?
    }

    /// The password with which the pool opens a database: what someone who took over a container could compute.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn password_for(&self, database: &str) -> Result<String> {
        let script = format!(
            "import base64, hmac\n\
             key = base64.b64decode(open('/etc/platform-pool/pool.key').read().split()[0])\n\
             digest = hmac.digest(key, b'{database}', 'sha256')\n\
             print(base64.urlsafe_b64encode(digest).decode().rstrip('='))"
        );
        self.python("web", &script).await
    }

    /// Name of the pool's bus database.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn bus_database(&self) -> Result<String> {
        self.python(
            "web",
            "import json; print(json.load(open('/etc/platform-pool/pool.json'))['bus_database'])",
        )
        .await
    }
}
