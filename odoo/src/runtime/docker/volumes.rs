//! A pool's volumes: the control volume that its containers read, and the sessions that they share.
//!
//! Files get into a volume through the engine's archive interface and a container that is never started, so that
//! the engine may be anywhere and nothing has to run as root on this machine.

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::sync::PoisonError;

use bollard::models::{
    ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use futures::{TryStreamExt as _, stream};
use secrecy::zeroize::Zeroizing;

use super::{CALL_DEADLINE, DockerRuntime, RuntimeError, call, call_within, if_found};
use crate::names::PoolId;
use crate::runtime::control::{self, CONTROL_PATH, ControlFile, MANIFEST};
use crate::runtime::{ContainerUser, PoolRole, PoolSpec, Runtime as _};

/// Where the container that fills volumes sees them: in one directory, so that one archive fills both.
const FILL_PATH: &str = "/platform";

const ROOT: ContainerUser = ContainerUser { uid: 0, gid: 0 };

/// What a pool's control volume was seen to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filled {
    /// When the volume was made: one of the same name that was made since is another.
    control: String,
    manifest: String,
}

impl DockerRuntime {
    pub(super) fn control_volume(&self, pool: PoolId) -> String {
        self.name(pool, "control")
    }

    pub(super) fn sessions_volume(&self, pool: PoolId) -> String {
        self.name(pool, "sessions")
    }

    /// The network, the volumes and their content.
    pub(super) async fn ensure_surroundings(&self, spec: &PoolSpec) -> Result<(), RuntimeError> {
        self.resolve_image(spec.image.as_str()).await?;
        self.ensure_network(spec.pool).await?;
        let control = self
            .ensure_volume(spec.pool, self.control_volume(spec.pool), "control")
            .await?;
        let sessions = self
            .ensure_volume(spec.pool, self.sessions_volume(spec.pool), "sessions")
            .await?;
        let files = control::files(spec);
        // The volume with the sessions has no content of ours, only an owner that came with this manifest.
        let manifest = format!("{} {sessions}", control::manifest(&files, spec.user));
        let wanted = Filled { control, manifest };
        if self.last_filled(spec.pool).as_ref() == Some(&wanted) {
            return Ok(());
        }
        if self.filled_with(spec.pool).await?.as_deref() != Some(wanted.manifest.as_str()) {
            self.fill(spec, &files, &wanted.manifest).await?;
        }
        self.filled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(spec.pool, wanted);
        Ok(())
    }

    /// What this process has seen the pool's volume to hold. Asking a running container each time would have the
    /// engine mount and unmount all of its volumes.
    fn last_filled(&self, pool: PoolId) -> Option<Filled> {
        self.filled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&pool)
            .cloned()
    }

    /// The time at which the volume was made, which is now if there was none.
    async fn ensure_volume(&self, pool: PoolId, name: String, role: &str) -> Result<String, RuntimeError> {
        let docker = self.docker().await?;
        // Looked for first: the engine answers a request for a volume that exists with the one that exists.
        let found = if_found(call("reading a volume", docker.inspect_volume(&name)).await)?;
        let volume = match found {
            Some(volume) => volume,
            None => {
                let request = VolumeCreateRequest {
                    name: Some(name.clone()),
                    labels: Some(self.labels(pool, role)),
                    ..Default::default()
                };
                call("making a volume", docker.create_volume(request)).await?
            }
        };
        self.check_ours("volume", &name, Some(&volume.labels))?;
        Ok(volume.created_at.unwrap_or_default())
    }

    /// The manifest of what the control volume holds, as a container of the pool sees it.
    async fn filled_with(&self, pool: PoolId) -> Result<Option<String>, RuntimeError> {
        let docker = self.docker().await?;
        for role in PoolRole::ALL {
            let name = self.name(pool, role.as_str());
            if self.container(&name).await?.is_none() {
                continue;
            }
            let options = DownloadFromContainerOptionsBuilder::default()
                .path(&format!("{CONTROL_PATH}/{MANIFEST}"))
                .build();
            let download = docker.download_from_container(&name, Some(options));
            let chunks = download.map_ok(|bytes| bytes.to_vec()).try_concat();
            return Ok(
                if_found(call("reading the manifest", chunks).await)?.and_then(|archive| only_file(&archive))
            );
        }
        Ok(None)
    }

    async fn fill(&self, spec: &PoolSpec, files: &[ControlFile], manifest: &str) -> Result<(), RuntimeError> {
        let archive = archive(spec.user, files, manifest).map_err(|error| {
            super::engine_error(
                "packing the control volume",
                bollard::errors::Error::IOError { err: error },
            )
        })?;
        let docker = self.docker().await?;
        let name = self.name(spec.pool, "fill");
        self.remove_container(&name, false).await?;
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let mounts = vec![
            volume(
                &self.control_volume(spec.pool),
                &format!("{FILL_PATH}/control"),
                false,
            ),
            volume(
                &self.sessions_volume(spec.pool),
                &format!("{FILL_PATH}/sessions"),
                false,
            ),
        ];
        let body = ContainerCreateBody {
            image: Some(spec.image.to_string()),
            cmd: Some(vec!["false".to_owned()]),
            labels: Some(self.labels(spec.pool, "fill")),
            network_disabled: Some(true),
            host_config: Some(HostConfig {
                mounts: Some(mounts),
                ..Default::default()
            }),
            ..Default::default()
        };
        call(
            "making the container that fills volumes",
            docker.create_container(Some(options), body),
        )
        .await?;
        let options = UploadToContainerOptionsBuilder::default().path(FILL_PATH).build();
        // As a stream: the client logs other bodies at its finest level, and this one holds keys.
        let body = bollard::body_stream(stream::iter([archive.to_vec().into()]));
        call_within(
            CALL_DEADLINE,
            "filling volumes",
            docker.upload_to_container(&name, Some(options), body),
        )
        .await?;
        self.remove_container(&name, false).await
    }
}

/// A volume mounted as it is: the engine would copy what the image has at that place into an empty one.
pub(super) fn volume(name: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(name.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The archive that fills both volumes. The manifest comes first without content and last with it: a volume that
/// was half filled has none.
fn archive(user: ContainerUser, files: &[ControlFile], manifest: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let size: usize = files.iter().map(|file| file.content.len() + 2048).sum();
    let mut builder = tar::Builder::new(Vec::with_capacity(size + 8192));
    append(&mut builder, "sessions/", 0o700, user, &[])?;
    append(&mut builder, "control/", 0o755, ROOT, &[])?;
    append(&mut builder, &format!("control/{MANIFEST}"), 0o444, ROOT, &[])?;
    let mut made = HashSet::new();
    for file in files {
        for (end, _) in file.path.match_indices('/') {
            if made.insert(&file.path[..end]) {
                append(
                    &mut builder,
                    &format!("control/{}/", &file.path[..end]),
                    0o755,
                    ROOT,
                    &[],
                )?;
            }
        }
        let owner = if file.is_secret() { user } else { ROOT };
        append(
            &mut builder,
            &format!("control/{}", file.path),
            file.mode,
            owner,
            &file.content,
        )?;
    }
    append(
        &mut builder,
        &format!("control/{MANIFEST}"),
        0o444,
        ROOT,
        manifest.as_bytes(),
    )?;
    builder.into_inner().map(Zeroizing::new)
}

fn append(
    builder: &mut tar::Builder<Vec<u8>>,
    path: &str,
    mode: u32,
    owner: ContainerUser,
    content: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(if path.ends_with('/') {
        tar::EntryType::Directory
    } else {
        tar::EntryType::Regular
    });
    header.set_mode(mode);
    header.set_uid(owner.uid.into());
    header.set_gid(owner.gid.into());
    // Odoo's processes see by the time that a file has changed: one of the same size may get the same inode.
    header.set_mtime(u64::try_from(chrono::Utc::now().timestamp()).unwrap_or_default());
    header.set_size(content.len().try_into().unwrap_or(u64::MAX));
    builder.append_data(&mut header, path, content)
}

/// The content of an archive's only file.
fn only_file(archive: &[u8]) -> Option<String> {
    let mut archive = tar::Archive::new(archive);
    let mut entry = archive.entries().ok()?.next()?.ok()?;
    let mut text = String::new();
    entry.read_to_string(&mut text).ok()?;
    Some(text)
}
