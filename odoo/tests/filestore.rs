//! Filestores, on a real file system.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use odoo::filestore::{Filestore, FilestoreError};
use odoo::names::DatabaseName;
use uuid::Uuid;

async fn with_template(files: u32) -> (tempfile::TempDir, Filestore, DatabaseName) {
    let root = tempfile::tempdir().unwrap();
    let store = Filestore::new(root.path(), None);
    store.prepare().await.unwrap();
    store.prepare().await.unwrap();
    let template = DatabaseName::template("a template");
    store.make_empty(&template).await.unwrap();
    let tree = store.tenants().join(template.as_str());
    for index in 0..files {
        let directory = tree.join(format!("{:02x}", index % 256));
        fs::create_dir_all(&directory).unwrap();
        fs::write(
            directory.join(format!("{index:040x}")),
            format!("content {index}"),
        )
        .unwrap();
    }
    assert_eq!(
        store.seal_template(&template, "job-1").await.unwrap(),
        u64::from(files)
    );
    (root, store, template)
}

fn tenant() -> DatabaseName {
    DatabaseName::tenant(Uuid::now_v7())
}

async fn has_tree(store: &Filestore, name: &DatabaseName) -> bool {
    let trees = store.databases().await.unwrap();
    trees.iter().any(|tree| tree.database == *name)
}

fn names_in(directory: &Path) -> Vec<String> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test]
async fn a_tenants_files_are_the_templates_own_and_nobody_may_write_them() {
    let (root, store, template) = with_template(600).await;
    let name = tenant();
    let began = std::time::Instant::now();
    let report = store.clone_template(&template, &name, "job-1").await.unwrap();
    eprintln!("600 files in {:?}", began.elapsed());
    assert_eq!((report.linked, report.copied, report.present), (600, 0, 0));

    let path = format!("00/{:040x}", 0);
    let (theirs, ours) = (
        fs::metadata(root.path().join("templates").join(template.as_str()).join(&path)).unwrap(),
        fs::metadata(store.tenants().join(name.as_str()).join(&path)).unwrap(),
    );
    assert_eq!(theirs.ino(), ours.ino());
    assert_eq!(ours.permissions().mode() & 0o7777, 0o444);
    for directory in [
        store.tenants().join(name.as_str()),
        store.tenants().join(name.as_str()).join("00"),
    ] {
        assert_eq!(
            fs::metadata(directory).unwrap().permissions().mode() & 0o7777,
            0o2775
        );
    }
    // The tree that Odoo wrote during the build has other files: Odoo's user could write those.
    let built = fs::metadata(store.tenants().join(template.as_str()).join(&path)).unwrap();
    assert_ne!(built.ino(), ours.ino());
    assert!(names_in(&root.path().join("staging")).is_empty());
}

#[tokio::test]
async fn a_second_run_completes_what_a_first_one_made() {
    let (_root, store, template) = with_template(20).await;
    let name = tenant();
    store.clone_template(&template, &name, "job-1").await.unwrap();
    let lost = store.tenants().join(name.as_str()).join(format!("03/{:040x}", 3));
    fs::remove_file(&lost).unwrap();
    let own = store.tenants().join(name.as_str()).join("03/own");
    fs::write(&own, "Odoo's").unwrap();
    let report = store.clone_template(&template, &name, "job-2").await.unwrap();
    assert_eq!((report.linked, report.present), (1, 19));
    assert!(lost.exists());
    assert_eq!(fs::read_to_string(own).unwrap(), "Odoo's");
}

#[tokio::test]
async fn what_a_killed_run_staged_is_neither_seen_nor_in_the_way() {
    let (root, store, template) = with_template(20).await;
    let name = tenant();
    let left = root.path().join("staging").join(format!("{name}.job-1"));
    fs::create_dir_all(left.join("00")).unwrap();
    fs::write(left.join("00/half"), "half").unwrap();
    assert!(!has_tree(&store, &name).await);
    // The same run again, and a later one.
    store.clone_template(&template, &name, "job-1").await.unwrap();
    assert!(!store.tenants().join(name.as_str()).join("00/half").exists());
    fs::create_dir_all(root.path().join("staging/t_other.job-7")).unwrap();
    fs::create_dir_all(root.path().join("trash/t_other.x")).unwrap();
    let under_way = store.under_way().await.unwrap();
    assert_eq!(under_way, ["t_other.job-7", "t_other.x"]);
    let over = vec!["t_other.x".to_owned(), "../tenants".to_owned()];
    assert_eq!(store.remove_left_behind(over).await.unwrap(), 1);
    assert_eq!(names_in(&root.path().join("staging")), ["t_other.job-7"]);
    assert!(names_in(&root.path().join("trash")).is_empty());
}

#[tokio::test]
async fn deleting_leaves_the_template_and_the_neighbours_alone() {
    let (root, store, template) = with_template(20).await;
    let (gone, stays) = (tenant(), tenant());
    for name in [&gone, &stays] {
        store.clone_template(&template, name, "job-1").await.unwrap();
    }
    store.delete(&gone).await.unwrap();
    store.delete(&gone).await.unwrap();
    assert!(!has_tree(&store, &gone).await && has_tree(&store, &stays).await);
    // What is not named as a database is none of the platform's.
    let before = store.databases().await.unwrap();
    assert!(before.iter().all(|tree| tree.ours));
    fs::create_dir(store.tenants().join("lost+found")).unwrap();
    assert_eq!(store.databases().await.unwrap(), before);
    assert!(names_in(&root.path().join("trash")).is_empty());
    let path = format!("01/{:040x}", 1);
    assert_eq!(
        fs::read_to_string(store.tenants().join(stays.as_str()).join(&path)).unwrap(),
        "content 1"
    );

    // Clones outlive their template.
    store.delete_template(&template).await.unwrap();
    assert_eq!(
        fs::read_to_string(store.tenants().join(stays.as_str()).join(&path)).unwrap(),
        "content 1"
    );
    let refused = store
        .clone_template(&template, &tenant(), "job-1")
        .await
        .unwrap_err();
    assert!(matches!(refused, FilestoreError::NoTemplate(_)));
}

#[tokio::test]
async fn another_file_system_gets_copies_that_are_as_safe() {
    // A tmpfs that every Linux has, and another file system than the directory for temporary files as a rule.
    let (shared, root) = (Path::new("/dev/shm"), tempfile::tempdir().unwrap());
    if fs::metadata(shared).map(|shm| shm.dev()).ok() == fs::metadata(root.path()).map(|root| root.dev()).ok()
    {
        eprintln!("both directories are on one file system: nothing to see");
        return;
    }
    let store = Filestore::new(root.path(), None);
    store.prepare().await.unwrap();
    let elsewhere = tempfile::tempdir_in(shared).unwrap();
    let template = DatabaseName::template("elsewhere");
    fs::create_dir(elsewhere.path().join("ab")).unwrap();
    fs::write(elsewhere.path().join("ab/abc"), "far").unwrap();
    std::os::unix::fs::symlink(
        elsewhere.path(),
        root.path().join("templates").join(template.as_str()),
    )
    .unwrap();

    let name = tenant();
    let report = store.clone_template(&template, &name, "job-1").await.unwrap();
    assert_eq!((report.linked, report.copied), (0, 1));
    let copy = store.tenants().join(name.as_str()).join("ab/abc");
    assert_eq!(fs::read_to_string(&copy).unwrap(), "far");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o444);
}

#[tokio::test]
async fn links_that_odoos_user_planted_are_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let store = Filestore::new(root.path(), None);
    store.prepare().await.unwrap();
    let template = DatabaseName::template("planted");
    store.make_empty(&template).await.unwrap();
    std::os::unix::fs::symlink(
        "/etc/passwd",
        store.tenants().join(template.as_str()).join("secret"),
    )
    .unwrap();
    let refused = store.seal_template(&template, "job-1").await.unwrap_err();
    assert!(matches!(refused, FilestoreError::Irregular(_)), "{refused}");
    assert!(!store.has_template(&template).await.unwrap());

    let (_other, store, template) = with_template(4).await;
    let name = tenant();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(store.tenants().join(name.as_str())).unwrap();
    std::os::unix::fs::symlink(outside.path(), store.tenants().join(name.as_str()).join("00")).unwrap();
    assert!(store.clone_template(&template, &name, "job-1").await.is_err());
    assert!(names_in(outside.path()).is_empty());
}
