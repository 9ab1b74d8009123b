//! The containers of a pool: what each is made of, and when one has to be made anew.

use std::collections::{BTreeMap, HashMap};

use bollard::ClientVersion;
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, PortBinding,
    RestartPolicy, RestartPolicyNameEnum, SystemInfo,
};
use bollard::query_parameters::{CreateContainerOptionsBuilder, StopContainerOptionsBuilder};
use sha2::{Digest, Sha256};

use super::volumes::volume;
use super::{
    CALL_DEADLINE, DockerRuntime, RuntimeError, SPEC_LABEL, STOP_SECONDS, call, call_within, if_found,
};
use crate::runtime::control::{self, CONTROL_PATH, SOCKET_PATH};
use crate::runtime::{ContainerLimits, ContainerState, PoolRole, PoolSpec};

/// Odoo's `data_dir`.
const DATA_PATH: &str = "/var/lib/odoo";

const SECOND: i64 = 1_000_000_000;

/// Limits that the engine can keep on this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capabilities {
    memory: bool,
    swap: bool,
    pids: bool,
    /// Checks may be more frequent while a container starts (Engine 25, interface 1.44).
    start_interval: bool,
}

impl Capabilities {
    pub(super) fn of(info: &SystemInfo, version: &ClientVersion) -> Self {
        Self {
            start_interval: (version.major_version, version.minor_version) >= (1, 44),
            memory: info.memory_limit.unwrap_or(false),
            swap: info.swap_limit.unwrap_or(false),
            pids: info.pids_limit.unwrap_or(false),
        }
    }

    /// What an operator should know of this machine.
    pub(super) fn warnings(self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (kept, what) in [
            (
                self.memory,
                "the kernel limits no container's memory: one pool can take all of the machine's",
            ),
            (
                self.swap,
                "the kernel limits no container's swap: a container at its memory limit swaps",
            ),
            (
                self.pids,
                "the kernel limits no container's processes: one pool can take all of the machine's",
            ),
        ] {
            if !kept {
                warnings.push(what.to_owned());
            }
        }
        warnings
    }
}

impl DockerRuntime {
    /// Makes the container anew unless it is as it should be. Says whether it did.
    pub(super) async fn ensure_container(
        &self,
        spec: &PoolSpec,
        role: PoolRole,
        warnings: &mut Vec<String>,
    ) -> Result<bool, RuntimeError> {
        let name = self.name(spec.pool, role.as_str());
        let body = self.pool_container(spec, role).await?;
        let wanted = body
            .labels
            .as_ref()
            .and_then(|labels| labels.get(SPEC_LABEL))
            .cloned();
        if let Some(found) = self.container(&name).await? {
            let label = found
                .config
                .as_ref()
                .and_then(|config| config.labels.as_ref()?.get(SPEC_LABEL))
                .cloned();
            if label == wanted {
                if super::state_of(&found) == ContainerState::Stopped {
                    self.start_container(&name).await?;
                }
                return Ok(false);
            }
            self.remove_container(&name, true).await?;
        }
        let docker = self.docker().await?;
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let created = call("making a container", docker.create_container(Some(options), body)).await?;
        warnings.extend(created.warnings);
        self.start_container(&name).await?;
        Ok(true)
    }

    pub(super) async fn start_container(&self, name: &str) -> Result<(), RuntimeError> {
        let docker = self.docker().await?;
        call(
            &format!("starting container {name}"),
            docker.start_container(name, None),
        )
        .await
    }

    /// Stops the container, letting Odoo end the requests that it is answering.
    pub(super) async fn stop_container(&self, name: &str) -> Result<(), RuntimeError> {
        let docker = self.docker().await?;
        let options = StopContainerOptionsBuilder::default().t(STOP_SECONDS).build();
        let deadline = CALL_DEADLINE + std::time::Duration::from_secs(STOP_SECONDS.unsigned_abs().into());
        let stopped = docker.stop_container(name, Some(options));
        if_found(call_within(deadline, "stopping a container", stopped).await).map(drop)
    }

    async fn pool_container(
        &self,
        spec: &PoolSpec,
        role: PoolRole,
    ) -> Result<ContainerCreateBody, RuntimeError> {
        let (limits, port) = match role {
            PoolRole::Web => (spec.limits.web, Some(("8069/tcp", spec.web_port))),
            PoolRole::Gevent => (spec.limits.gevent, Some(("8072/tcp", spec.gevent_port))),
            PoolRole::Cron => (spec.limits.cron, None),
        };
        let mut body = self
            .odoo_container(spec, role.as_str(), limits, vec![role.as_str().to_owned()])
            .await?;
        let capabilities = self.engine().await?.capabilities;
        body.exposed_ports = port.map(|(inside, _)| vec![inside.to_owned()]);
        body.healthcheck = Some(HealthConfig {
            test: Some(vec![
                "CMD".to_owned(),
                "/bin/sh".to_owned(),
                format!("{CONTROL_PATH}/health.sh"),
                role.as_str().to_owned(),
            ]),
            interval: Some(10 * SECOND),
            timeout: Some(10 * SECOND),
            retries: Some(3),
            start_period: Some(60 * SECOND),
            start_interval: capabilities.start_interval.then_some(SECOND),
        });
        if let Some(host) = body.host_config.as_mut() {
            host.restart_policy = Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                maximum_retry_count: None,
            });
            host.port_bindings = port.map(|(inside, outside)| {
                let binding = PortBinding {
                    host_ip: Some("127.0.0.1".to_owned()),
                    host_port: Some(outside.to_string()),
                };
                HashMap::from([(inside.to_owned(), Some(vec![binding]))])
            });
        }
        // Everything that a change of should restart the container is in the body, or in the files that Odoo reads
        // once; the label with the result is not.
        let mut digest = Sha256::new();
        digest.update(in_order(
            &serde_json::to_value(&body).expect("a container's description is plain data"),
        ));
        digest.update(control::fingerprint(spec));
        let fingerprint = control::hexadecimal(&digest.finalize());
        body.labels
            .get_or_insert_default()
            .insert(SPEC_LABEL.to_owned(), fingerprint);
        Ok(body)
    }

    /// A container with Odoo in it, that may do nothing that Odoo does not need.
    pub(super) async fn odoo_container(
        &self,
        spec: &PoolSpec,
        role: &str,
        limits: ContainerLimits,
        arguments: Vec<String>,
    ) -> Result<ContainerCreateBody, RuntimeError> {
        let capabilities = self.engine().await?.capabilities;
        let user = spec.user;
        let memory = i64::try_from(limits.memory).ok().filter(|_| capabilities.memory);
        let mut mounts = vec![
            volume(&self.control_volume(spec.pool), CONTROL_PATH, true),
            volume(
                &self.sessions_volume(spec.pool),
                &format!("{DATA_PATH}/sessions"),
                false,
            ),
            directory(&spec.filestore, &format!("{DATA_PATH}/filestore"), false),
        ];
        if let Some(socket) = control::socket_directory(&spec.database.host) {
            mounts.push(directory(socket, SOCKET_PATH, true));
        }
        let scratch = format!("rw,nosuid,nodev,uid={},gid={}", user.uid, user.gid);
        let tmpfs = HashMap::from([
            ("/tmp".to_owned(), format!("{scratch},mode=1777,size=512m")),
            (DATA_PATH.to_owned(), format!("{scratch},mode=0750,size=64m")),
        ]);
        Ok(ContainerCreateBody {
            image: Some(spec.image.to_string()),
            hostname: Some(role.to_owned()),
            user: Some(format!("{}:{}", user.uid, user.gid)),
            entrypoint: Some(vec!["/bin/sh".to_owned(), format!("{CONTROL_PATH}/entry.sh")]),
            cmd: Some(arguments),
            env: Some(vec![
                "HOME=/tmp".to_owned(),
                "PYTHONDONTWRITEBYTECODE=1".to_owned(),
            ]),
            working_dir: Some("/tmp".to_owned()),
            labels: Some(self.labels(spec.pool, role)),
            stop_timeout: Some(STOP_SECONDS.into()),
            host_config: Some(HostConfig {
                network_mode: Some(self.name(spec.pool, "net")),
                mounts: Some(mounts),
                tmpfs: Some(tmpfs),
                readonly_rootfs: Some(true),
                cap_drop: Some(vec!["ALL".to_owned()]),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                memory,
                // As much as memory alone means: no swap.
                memory_swap: memory.filter(|_| capabilities.swap),
                pids_limit: capabilities.pids.then_some(limits.pids.into()),
                log_config: Some(HostConfigLogConfig {
                    typ: Some("json-file".to_owned()),
                    config: Some(HashMap::from([
                        ("max-size".to_owned(), "10m".to_owned()),
                        ("max-file".to_owned(), "3".to_owned()),
                    ])),
                }),
                ..Default::default()
            }),
            ..Default::default()
        })
    }
}

/// A JSON value as text that is the same for equal values: a `HashMap` has another order in each process, and
/// whether `serde_json` sorts is decided by the features that other crates ask for.
fn in_order(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().collect();
            let members = sorted
                .into_iter()
                .map(|(name, value)| format!("{name:?}:{}", in_order(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(in_order).collect::<Vec<_>>().join(",")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

fn directory(source: &std::path::Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_descriptions_have_one_text_whatever_the_order_of_their_maps() {
        let labels = |names: &[&str]| -> HashMap<String, String> {
            names
                .iter()
                .map(|name| ((*name).to_owned(), format!("value of {name}")))
                .collect()
        };
        let text = |labels| {
            let body = ContainerCreateBody {
                labels: Some(labels),
                ..Default::default()
            };
            in_order(&serde_json::to_value(&body).unwrap())
        };
        let names: Vec<String> = (0..40).map(|index| format!("label {index}")).collect();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        let once = text(labels(&names));
        names.reverse();
        assert_eq!(text(labels(&names)), once);
        names.pop();
        assert_ne!(text(labels(&names)), once);
    }
}
