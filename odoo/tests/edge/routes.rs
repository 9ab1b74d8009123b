//! Routes appear, change and vanish without a reload, and only the platform's own.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use odoo::edge::{EdgeError, Route, RouteState};

use super::nginx::{TestEdge, WRITER, database, name};
use super::raw_http::get;

#[tokio::test(flavor = "multi_thread")]
async fn a_route_takes_effect_at_once_and_without_a_reload() {
    let test = TestEdge::start().await;
    assert_eq!(get(test.address, "a.localhost", "/", &[]).await.status, 404);

    test.publish("a.localhost", 1, RouteState::Active).await;
    let seen = get(test.address, "a.localhost", "/odoo?x=1", &[]).await.seen();
    assert_eq!((seen.upstream(), seen.target()), ("web", "/odoo?x=1"));
    assert_eq!(seen.header("x-platform-database"), Some(database(1).as_str()));
    assert_eq!(seen.header("x-platform-edge"), Some(test.secret.expose()));

    assert!(
        test.edge
            .withdraw(&name("a.localhost"), &database(1))
            .await
            .unwrap()
    );
    assert_eq!(get(test.address, "a.localhost", "/", &[]).await.status, 404);
    assert_eq!(test.error_log(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn doing_it_twice_changes_nothing() {
    let test = TestEdge::start().await;
    let (host, route) = (name("a.localhost"), test.route(1, RouteState::Active));
    assert!(test.edge.publish(&host, &route, WRITER).await.unwrap());
    assert!(!test.edge.publish(&host, &route, "job:test:2").await.unwrap());
    assert_eq!(test.edge.route(&host).await.unwrap(), Some(route.clone()));

    let suspended = Route {
        state: RouteState::Suspended,
        ..route.clone()
    };
    assert!(test.edge.publish(&host, &suspended, WRITER).await.unwrap());
    assert_eq!(
        test.edge.routes().await.unwrap().routes,
        [(host.clone(), suspended)]
    );

    assert!(test.edge.withdraw(&host, &route.database).await.unwrap());
    assert!(!test.edge.withdraw(&host, &route.database).await.unwrap());
    assert_eq!(test.edge.route(&host).await.unwrap(), None);
    test.edge.prepare().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_attempt_neither_steals_nor_withdraws_the_host_of_its_next_owner() {
    let test = TestEdge::start().await;
    let host = name("a.localhost");
    test.publish("a.localhost", 2, RouteState::Active).await;

    let stolen = test
        .edge
        .publish(&host, &test.route(1, RouteState::Active), "job:late:1")
        .await;
    assert!(matches!(stolen, Err(EdgeError::HostTaken { database: owner, .. }) if owner == database(2)));
    assert!(!test.edge.withdraw(&host, &database(1)).await.unwrap());
    assert_eq!(
        test.edge.route(&host).await.unwrap().unwrap().database,
        database(2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_left_alone_and_serves_nothing() {
    let test = TestEdge::start().await;
    let hosts = test.edge.path().join("hosts");
    std::fs::write(hosts.join("file.localhost"), "somebody's").unwrap();
    std::fs::create_dir(hosts.join("directory.localhost")).unwrap();
    symlink("/etc", hosts.join("etc.localhost")).unwrap();
    symlink("../to/1-2-x/y.active", hosts.join("dangling.localhost")).unwrap();
    // Looks like a route, but leads out of the directory.
    let route = test.route(1, RouteState::Active);
    let outside = test
        .file("to")
        .join(format!("{}-{}-{}", route.web_port, route.gevent_port, route.pool));
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join(format!("{}.active", route.database)), "").unwrap();
    symlink(
        outside.join(format!("{}.active", route.database)),
        hosts.join("outside.localhost"),
    )
    .unwrap();

    let foreign = [
        "dangling.localhost",
        "directory.localhost",
        "etc.localhost",
        "file.localhost",
        "outside.localhost",
    ];
    for host in foreign {
        let refused = test.edge.publish(&name(host), &route, WRITER).await;
        assert!(
            matches!(refused, Err(EdgeError::Foreign(_))),
            "{host}: {refused:?}"
        );
        let refused = test.edge.withdraw(&name(host), &route.database).await;
        assert!(
            matches!(refused, Err(EdgeError::Foreign(_))),
            "{host}: {refused:?}"
        );
        assert_eq!(
            get(test.address, host, "/passwd", &[]).await.status,
            404,
            "{host}"
        );
    }
    test.edge.sweep(Duration::ZERO).await.unwrap();
    let routes = test.edge.routes().await.unwrap();
    assert_eq!(
        (routes.routes.len(), routes.foreign),
        (0, foreign.map(str::to_owned).to_vec())
    );
    assert_eq!(
        std::fs::read_to_string(hosts.join("file.localhost")).unwrap(),
        "somebody's"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_of_the_api_and_databases_that_are_no_tenants_are_refused() {
    let test = TestEdge::start().await;
    let route = test.route(1, RouteState::Active);
    for host in ["console.example.com", "localhost"] {
        let refused = test.edge.publish(&name(host), &route, WRITER).await;
        assert!(matches!(refused, Err(EdgeError::Reserved(_))), "{refused:?}");
    }
    let bus = Route {
        database: test.pool.bus_database(),
        ..route
    };
    let refused = test.edge.publish(&name("a.localhost"), &bus, WRITER).await;
    assert!(matches!(refused, Err(EdgeError::NotATenant(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_removes_what_nothing_leads_to_and_nothing_else() {
    let test = TestEdge::start().await;
    test.publish("a.localhost", 1, RouteState::Active).await;
    test.publish("b.localhost", 2, RouteState::Active).await;
    test.publish("a.localhost", 1, RouteState::Suspended).await;
    test.edge
        .withdraw(&name("b.localhost"), &database(2))
        .await
        .unwrap();
    // What an attempt leaves that dies between link and rename.
    symlink("../to/x", test.edge.path().join("hosts/.staged-dead")).unwrap();

    assert_eq!(test.edge.sweep(Duration::from_secs(60)).await.unwrap(), 0);
    assert_eq!(test.edge.sweep(Duration::ZERO).await.unwrap(), 3);
    assert_eq!(test.edge.sweep(Duration::ZERO).await.unwrap(), 0);
    assert_eq!(get(test.address, "a.localhost", "/", &[]).await.status, 402);
    test.publish("b.localhost", 3, RouteState::Active).await;
    assert_eq!(get(test.address, "b.localhost", "/", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_its_route_is_replaced() {
    let test = TestEdge::start().await;
    let host = name("a.localhost");
    test.publish("a.localhost", 1, RouteState::Active).await;
    let stop = Arc::new(AtomicBool::new(false));
    let visitors: Vec<_> = (0..8)
        .map(|_| {
            let (stop, address) = (stop.clone(), test.address);
            tokio::spawn(async move {
                let mut served = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = get(address, "a.localhost", "/", &[]).await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    assert_eq!(
                        answer.seen().header("x-platform-database"),
                        Some(database(1).as_str())
                    );
                    served += 1;
                }
                served
            })
        })
        .collect();
    // Both ports lead to upstreams that answer, so every change is one between two good routes.
    let there = test.route(1, RouteState::Active);
    let back = Route {
        web_port: there.gevent_port,
        gevent_port: there.web_port,
        ..there.clone()
    };
    for _ in 0..500 {
        test.edge.publish(&host, &back, WRITER).await.unwrap();
        test.edge.publish(&host, &there, WRITER).await.unwrap();
        test.edge.sweep(Duration::from_secs(5)).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let mut served = 0;
    for visitor in visitors {
        served += visitor.await.unwrap();
    }
    assert!(served > 100, "only {served} requests met the changes");
    assert_eq!(test.error_log(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_at_the_same_time_end_in_one_of_their_routes() {
    let test = Arc::new(TestEdge::start().await);
    let attempts: Vec<_> = (0..16_u16)
        .map(|number| {
            let test = test.clone();
            tokio::spawn(async move {
                let route = Route {
                    web_port: 1000 + number,
                    ..test.route(1, RouteState::Active)
                };
                test.edge
                    .publish(&name("a.localhost"), &route, &format!("job:x:{number}"))
                    .await
                    .unwrap();
            })
        })
        .collect();
    for attempt in attempts {
        attempt.await.unwrap();
    }
    let route = test.edge.route(&name("a.localhost")).await.unwrap().unwrap();
    assert!((1000..1016).contains(&route.web_port));
    let left = std::fs::read_dir(test.edge.path().join("hosts")).unwrap().count();
    assert_eq!(left, 1, "staged links are left");
}
