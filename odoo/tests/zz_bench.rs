#![allow(unused)]
mod support;
use std::time::{Duration, Instant};
use odoo::{filestore::Filestore, keys::*, names::*, password::*, runtime::*, server::*, template::*};
use uuid::Uuid;
#[tokio::test]
async fn bench() {
    let dir = std::path::Path::new("/work/scratch-odoo/fs");
    std::fs::create_dir_all(dir).unwrap();
    let keyfile = dir.join("key");
    let keys = if keyfile.exists() { PoolKeyRing::parse(&std::fs::read_to_string(&keyfile).unwrap()).unwrap() } else {
        let k = PoolKeyRing::new(PoolKey::generate());
        use secrecy::ExposeSecret; std::fs::write(&keyfile, k.to_text().expose_secret()).unwrap(); k };
    let fs = Filestore::new(dir, Some(61235)); fs.prepare().await.unwrap();
    let server = support::server();
    let mut session = support::session(&server).await;
    let rt = DockerRuntime::new(&support::variable("TEST_DOCKER_HOST"), "bench", "10.213.0.0/16".parse().unwrap()).unwrap();
    let image = rt.resolve_image("odoo-saas/odoo:19").await.unwrap();
    let spec = TemplateSpec::new(image.clone(), ["base".into(), "web".into()]);
    let template = match session.template(&spec.database()).await.unwrap() { Some(t) => t, None => {
        let pool = PoolSpec { image, filestore: fs.tenants(), user: ContainerUser{uid:61234,gid:61235}, ..support::pool_spec(&keys) };
        session.ensure_bus_database(pool.pool, &keys.password_for(&pool.pool.bus_database())).await.unwrap();
        let b = TemplateBuild { spec: &spec, filestore: &fs, keys: &keys };
        let t = Instant::now();
        b.begin(&mut session).await.unwrap(); eprintln!("begin {:?}", t.elapsed());
        b.install(&rt, &pool).await.unwrap(); eprintln!("install {:?}", t.elapsed());
        let x = b.finish(&mut session, "x-1").await.unwrap(); eprintln!("finish {:?}", t.elapsed());
        rt.remove_pool(pool.pool).await.unwrap();
        x
    }};
    drop(session);
    let mut all: std::collections::BTreeMap<&str, Vec<Duration>> = Default::default();
    let mut names = vec![];
    for _ in 0..15 {
        let name = DatabaseName::tenant(Uuid::now_v7());
        let mut t = Instant::now(); let t0 = t;
        macro_rules! part { ($n:expr) => { all.entry($n).or_default().push(t.elapsed()); t = Instant::now(); } }
        let mut session = support::session(&server).await; part!("1 session");
        session.end_lower_epochs().await.unwrap(); part!("2 end");
        session.lock(name.as_str()).await.unwrap(); part!("3 lock");
        let pw = keys.password_for(&name);
        session.ensure_role(&RoleSpec{name:&name, group: RoleGroup::Tenants, password:&pw, connection_limit: 10, login:false}).await.unwrap(); part!("4 role");
        session.clone_database(&template.database, &name).await.unwrap(); part!("5 clone");
        let id = Identity { base_url: "http://x".into(), admin: AdminCredentials{login:"a".into(),email:"a@x".into(),password:PasswordHash::of_generated(&GeneratedPassword::generate())}, language: None, country: Some("FR".into()), company_name: "x".into() };
        part!("6 hash");
        session.write_identity(&name, &id).await.unwrap(); part!("7 identity");
        fs.clone_template(&template.database, &name, "a-1").await.unwrap(); part!("8 filestore");
        session.set_login(&name, true).await.unwrap(); part!("9 login");
        all.entry("total").or_default().push(t0.elapsed());
        names.push(name);
    }
    for (k, mut v) in all { v.sort(); eprintln!("{k:12} median {:?} max {:?}", v[v.len()/2], v[v.len()-1]); }
    if std::env::var("KEEP").is_ok() { eprintln!("{names:?}"); return }
    let t = Instant::now();
    let mut session = support::session(&server).await;
    for n in &names { session.drop_database(n).await.unwrap(); session.drop_role(n).await.unwrap(); fs.delete(n).await.unwrap(); }
    eprintln!("delete each {:?}", t.elapsed() / 15);
}
