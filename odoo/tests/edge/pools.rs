//! Pools need a reload, which is checked first and awaited.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use odoo::edge::{EdgeError, PoolEdge, Route, RouteState};
use odoo::keys::EdgeSecret;
use odoo::names::PoolId;
use uuid::Uuid;

use super::nginx::{Identity, TestEdge, WRITER, name};
use super::raw_http::{get, request, send};

fn pool(number: u128) -> PoolEdge {
    PoolEdge {
        id: PoolId::new(Uuid::from_u128(number)),
        secret: EdgeSecret::generate(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pool_serves_after_the_reload_and_answers_503_before() {
    let test = TestEdge::start().await;
    let (first, second) = (
        PoolEdge {
            id: test.pool,
            secret: test.secret.clone(),
        },
        pool(2),
    );
    let route = Route {
        pool: second.id,
        ..test.route(1, RouteState::Active)
    };
    test.edge
        .publish(&name("a.localhost"), &route, WRITER)
        .await
        .unwrap();

    let generation = test.edge.set_pools(&[first, second.clone()]).await.unwrap();
    assert_eq!(get(test.address, "a.localhost", "/", &[]).await.status, 503);
    let early = test
        .edge
        .wait_loaded(&generation, Duration::from_millis(300))
        .await;
    assert!(matches!(early, Err(EdgeError::NotLoaded { .. })), "{early:?}");

    test.load(&generation).await;
    let seen = get(test.address, "a.localhost", "/", &[]).await.seen();
    assert_eq!(seen.header("x-platform-edge"), Some(second.secret.expose()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_pools_ask_for_no_reload() {
    let test = TestEdge::start().await;
    let (a, b) = (pool(1), pool(2));
    let first = test.edge.set_pools(&[a.clone(), b.clone()]).await.unwrap();
    let written = std::fs::metadata(test.edge.path().join("generation"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(test.edge.set_pools(&[b, a.clone()]).await.unwrap(), first);
    assert_eq!(
        std::fs::metadata(test.edge.path().join("generation"))
            .unwrap()
            .modified()
            .unwrap(),
        written
    );

    // A crash between the two files is mended by the next call.
    std::fs::write(test.edge.path().join("generation"), "older\n").unwrap();
    let second = test.edge.set_pools(&[a]).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(
        std::fs::read_to_string(test.edge.path().join("generation")).unwrap(),
        format!("{second}\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pools_secrets_are_read_by_owner_and_group_alone() {
    let test = TestEdge::start().await;
    let mode = std::fs::metadata(test.edge.path().join("pools.map"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    assert!(
        !std::fs::read_to_string(test.edge.path().join("generation"))
            .unwrap()
            .contains(test.secret.expose())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_of_pools_is_not_loaded_and_the_old_one_goes_on() {
    let test = TestEdge::start().await;
    test.publish("a.localhost", 1, RouteState::Active).await;
    std::fs::write(test.edge.path().join("pools.map"), "pool_x \"unfinished").unwrap();
    let refused = test.reload().unwrap_err();
    assert!(refused.contains("pools.map"), "{refused}");
    let seen = get(test.address, "a.localhost", "/", &[]).await.seen();
    assert_eq!(seen.header("x-platform-edge"), Some(test.secret.expose()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_starts_before_there_is_any_pool() {
    let test = TestEdge::start().await;
    for file in ["pools.map", "generation"] {
        std::fs::remove_file(test.edge.path().join(file)).unwrap();
    }
    test.reload().unwrap();
    let start = std::time::Instant::now();
    while get(test.address, "localhost", "/.edge/generation", &[])
        .await
        .body
        != "none\n"
    {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // And without its directories every host is unknown.
    std::fs::remove_dir(test.edge.path().join("hosts")).unwrap();
    assert_eq!(get(test.address, "a.localhost", "/", &[]).await.status, 404);
    assert_eq!(get(test.address, "localhost", "/v1/me", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_and_nginx_are_different_users_that_share_a_group() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can start programs as other users");
        return;
    }
    for identity in [Identity::RootMaster, Identity::Unprivileged] {
        let test = TestEdge::start_as(identity, |_| {}).await;
        test.publish("a.localhost", 1, RouteState::Active).await;
        let seen = get(test.address, "a.localhost", "/", &[]).await.seen();
        assert_eq!(
            seen.header("x-platform-edge"),
            Some(test.secret.expose()),
            "{identity:?}"
        );

        let route = Route {
            pool: pool(2).id,
            ..test.route(2, RouteState::Active)
        };
        test.edge
            .publish(&name("b.localhost"), &route, WRITER)
            .await
            .unwrap();
        let first = PoolEdge {
            id: test.pool,
            secret: test.secret.clone(),
        };
        let generation = test.edge.set_pools(&[first, pool(2)]).await.unwrap();
        test.load(&generation).await;
        assert_eq!(
            get(test.address, "b.localhost", "/", &[]).await.status,
            200,
            "{identity:?}"
        );
        // Bodies that don't fit into memory need the directory of temporary files.
        let mut upload = request("POST", "b.localhost", "/", &["Content-Length: 1000000"]).into_bytes();
        upload.resize(upload.len() + 1_000_000, b'x');
        assert_eq!(
            send(test.address, &upload).await.seen().body_length(),
            1_000_000,
            "{identity:?}"
        );
        assert_eq!(test.error_log(), "", "{identity:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_gone_is_shown_nothing() {
    let test = TestEdge::start().await;
    test.publish("a.localhost", 1, RouteState::Active).await;
    let generation = test.edge.set_pools(&[]).await.unwrap();
    test.load(&generation).await;
    assert_eq!(get(test.address, "a.localhost", "/", &[]).await.status, 503);
}
