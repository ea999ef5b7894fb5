//! The doors to NATS: who comes in, who is answered, and what the shipped configuration lets each role do.

use crate::binary::until;
use crate::harness::{
    SHIPPED, System, USERS, database, daybook, folder, id, nats_as, order_of, password, shipped_nats, start_nats_with,
};
use async_nats::{Client, ConnectOptions, Event, HeaderMap};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dev::provider;
use futures_util::{FutureExt, StreamExt};
use nkeys::KeyPair;
use order_services::process::connect_to;
use order_services::verbs;
use order_services::{notifier, queries};
use orders::id::ShipmentId;
use orders::{Command as DomainCommand, shipment};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair as TlsKey};
use runtime::api::Service;
use runtime::nats::{Nats, check};
use runtime::process::{Urls, jetstream};
use runtime::relay::RelayError;
use runtime::step::{Outcome, Step};
use runtime::subject;
use serde_json::{Value, json};
use servers::Configuration;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use store::Level;
use tokio::process::{Child, Command};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use uuid::Uuid;

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A verb that needs NATS alone, and that nobody answers.
fn asking(settings: &[(&str, &str)]) -> Command {
    let mut command = daybook();
    command.args(["stock", "show", "mug"]).envs(settings.iter().copied());
    command
}

/// Whether NATS has let it in: then it was told at once that nobody answers.
async fn is_let_in(settings: &[(&str, &str)]) -> bool {
    let output = asking(settings).output().await.unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(!said.contains("secret"), "{said}");
    match said.contains("no responders") {
        true => true,
        false => {
            assert!(said.contains("refuses the login") || said.contains("cannot be reached"), "{said}");
            false
        }
    }
}

async fn nats_with(configuration: &str) -> servers::Nats {
    let file = folder("nats").await.with_extension("conf");
    fs::write(&file, configuration).unwrap();
    start_nats_with(Some(Configuration { file, environment: vec![], login: None })).await
}

async fn file_with(text: &str) -> String {
    let file = folder("login").await.with_extension("secret");
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// All that can be set, but for secrets.
const SETTINGS: [&str; 18] = [
    "DATABASE_URL",
    "DATABASE_HOSTS",
    "DATABASE_PASSWORD_FILE",
    "DAYBOOK_CLOCK_TOLERANCE",
    "NATS_URL",
    "NATS_CONTEXT_FILE",
    "NATS_RELAY_CONTEXT_FILE",
    "NATS_USER",
    "NATS_PASSWORD_FILE",
    "NATS_TOKEN_FILE",
    "NATS_NKEY_FILE",
    "NATS_CREDS",
    "NATS_CA",
    "NATS_CERT",
    "NATS_KEY",
    "NATS_INBOX_PREFIX",
    "NATS_REPLY_PREFIXES",
    "NATS_REPLICAS",
];

#[tokio::test]
async fn a_user_with_a_password_comes_in() {
    let nats = nats_with("authorization { user: shop, password: \"secret@1,\" }").await;
    let (url, file) = (format!("nats://127.0.0.1:{}", nats.port()), file_with("secret@1,\n").await);
    assert!(!is_let_in(&[("NATS_URL", &url)]).await);
    assert!(!is_let_in(&[("NATS_URL", &url), ("NATS_USER", "shop"), ("NATS_PASSWORD", "secret")]).await);
    assert!(is_let_in(&[("NATS_URL", &url), ("NATS_USER", "shop"), ("NATS_PASSWORD", "secret@1,")]).await);
    assert!(is_let_in(&[("NATS_URL", &url), ("NATS_USER", "shop"), ("NATS_PASSWORD_FILE", &file)]).await);
    // As NATS' own command line writes it; several servers, of which one is away.
    let port = nats.port();
    let two = format!("nats://shop:secret%401%2C@127.0.0.1:1,nats://127.0.0.1:{port}");
    assert!(is_let_in(&[("NATS_URL", &two)]).await);
    let context = json!({ "url": url, "user": "shop", "password": "secret@1,", "token": "", "creds": "" });
    let context = file_with(&context.to_string()).await;
    assert!(is_let_in(&[("NATS_CONTEXT_FILE", &context)]).await);
    // What is empty is not set, as files for containers have it.
    let empty = SETTINGS.map(|name| (name, ""));
    assert!(is_let_in(&[&empty[..], &[("NATS_CONTEXT_FILE", &*context)]].concat()).await);

    // What is set wrongly is told, with what to do, and without the secret.
    for (settings, told) in [
        (&[("NATS_URL", &*url), ("NATS_USER", "shop")][..], "set NATS_PASSWORD or NATS_PASSWORD_FILE"),
        (&[("NATS_URL", &url), ("NATS_PASSWORD", "secret")], "set NATS_USER"),
        (&[("NATS_URL", &url), ("NATS_PASSWORD", "secret"), ("NATS_PASSWORD_FILE", &file)], "set one of them"),
        (
            &[("NATS_URL", &url), ("NATS_CREDS", "/no/such/file")],
            "NATS_CREDS names /no/such/file, which cannot be read",
        ),
        (&[("NATS_URL", "nats://shop:secret@a:port")], "NATS_URL is malformed"),
        (&[("NATS_URL", &url), ("NATS_REPLY_PREFIXES", "daybook.evt")], "write a subject without wildcards"),
        (&[("NATS_URL", &url), ("NATS_REPLY_PREFIXES", "_INBOX,")], "write a subject without wildcards"),
        (&[("NATS_URL", &url), ("NATS_REPLICAS", "three")], "invalid value 'three'"),
        (&[("NATS_URL", &url), ("NATS_REPLICAS", " ")], "invalid value ' '"),
    ] {
        let output = asking(settings).output().await.unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(told) && !said.contains("secret"), "{said}");
    }
}

#[tokio::test]
async fn a_token_comes_in() {
    let nats = nats_with("authorization { token: secret_1 }").await;
    let (port, file) = (nats.port(), file_with("secret_1").await);
    let url = format!("nats://127.0.0.1:{port}");
    assert!(is_let_in(&[("NATS_URL", &url), ("NATS_TOKEN", "secret_1")]).await);
    assert!(is_let_in(&[("NATS_URL", &url), ("NATS_TOKEN_FILE", &file)]).await);
    assert!(is_let_in(&[("NATS_URL", &format!("nats://secret_1@127.0.0.1:{port}"))]).await);
    assert!(!is_let_in(&[("NATS_URL", &url), ("NATS_TOKEN", "secret_2")]).await);
}

#[tokio::test]
async fn an_nkey_comes_in() {
    let (known, unknown) = (KeyPair::new_user(), KeyPair::new_user());
    let nats = nats_with(&format!("authorization {{ users: [{{ nkey: {} }}] }}", known.public_key())).await;
    let url = format!("nats://127.0.0.1:{}", nats.port());
    for (key, is_known) in [(&known, true), (&unknown, false)] {
        let file = file_with(&format!("# a seed\n{}\n", key.seed().unwrap())).await;
        assert_eq!(is_let_in(&[("NATS_URL", &url), ("NATS_NKEY_FILE", &file)]).await, is_known);
    }
    let no_seed = file_with("secret").await;
    assert!(!is_let_in(&[("NATS_URL", &url), ("NATS_NKEY_FILE", &no_seed)]).await);
}

/// A JWT of NATS' own form: who `subject` is, as `issuer` says.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: &Value) -> String {
    let encoded = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = json!({
        "jti": "1", "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(), "name": "daybook", "nats": nats,
    });
    let signed = format!("{}.{}", encoded(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), encoded(&claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn a_file_of_credentials_comes_in() {
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let system = KeyPair::new_account();
    let unlimited = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    let of_operator = jwt(&operator, &operator, &json!({ "type": "operator", "version": 2 }));
    let account_of = |key: &KeyPair| {
        let claims = json!({ "type": "account", "version": 2, "limits": unlimited });
        format!("{}: {}", key.public_key(), jwt(&operator, key, &claims))
    };
    let nats = nats_with(&format!(
        "operator: {of_operator}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}, {} }}\n",
        system.public_key(),
        account_of(&system),
        account_of(&account)
    ))
    .await;
    let url = format!("nats://127.0.0.1:{}", nats.port());
    for (issuer, is_known) in [(&account, true), (&KeyPair::new_account(), false)] {
        let of_user =
            jwt(issuer, &user, &json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 }));
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n\
             ------END USER NKEY SEED------\n",
            user.seed().unwrap()
        );
        let file = file_with(&creds).await;
        assert_eq!(is_let_in(&[("NATS_URL", &url), ("NATS_CREDS", &file)]).await, is_known);
    }
}

/// Certificates of an authority of its own, as PEM files in a folder.
struct Authority {
    issuer: CertifiedIssuer<'static, TlsKey>,
    dir: PathBuf,
}

impl Authority {
    async fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, TlsKey::generate().unwrap()).unwrap();
        let dir = folder("tls").await;
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    /// The paths of a certificate and its key.
    fn certify(&self, name: &str) -> (String, String) {
        let key = TlsKey::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let path = |ending: &str| self.path(&format!("{name}.{ending}"));
        fs::write(path("pem"), certificate.pem()).unwrap();
        fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("pem"), path("key"))
    }

    fn path(&self, file: &str) -> String {
        self.dir.join(file).to_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn certificates_are_checked_on_both_sides() {
    let (ours, others) = (Authority::new().await, Authority::new().await);
    let (server, server_key) = ours.certify("localhost");
    let (client, client_key) = ours.certify("shop");
    let (stranger, stranger_key) = others.certify("shop");
    let ca = ours.path("ca.pem");
    let nats = nats_with(&format!(
        "tls {{ cert_file: \"{server}\", key_file: \"{server_key}\", ca_file: \"{ca}\", verify: true }}"
    ))
    .await;
    let url = format!("tls://localhost:{}", nats.port());
    let known = [("NATS_URL", &*url), ("NATS_CA", &ca), ("NATS_CERT", &client), ("NATS_KEY", &client_key)];
    assert!(is_let_in(&known).await);
    assert!(!is_let_in(&known[..2]).await, "without a certificate");
    let unknown = [("NATS_CERT", &*stranger), ("NATS_KEY", &stranger_key)];
    assert!(!is_let_in(&[&known[..2], &unknown].concat()).await, "with that of another authority");
    let other_ca = others.path("ca.pem");
    assert!(!is_let_in(&[known[0], ("NATS_CA", &other_ca), known[2], known[3]]).await, "of another server");
    let half = asking(&known[..3]).output().await.unwrap();
    assert_eq!((half.status.code(), stderr(&half).contains("set both, or neither")), (Some(2), true), "{half:?}");
}

/// A system with every service that answers.
struct Answering {
    system: System,
    services: Vec<Service>,
}

impl Answering {
    async fn start() -> Self {
        let mut system = System::start().await;
        let mut services = vec![
            verbs::start(&system.parts.client, system.executor.clone()).await.unwrap(),
            queries::start(&system.parts.client, system.parts.read.clone()).await.unwrap(),
        ];
        services.append(&mut system.outside);
        system.parts.client.flush().await.unwrap();
        Self { system, services }
    }

    fn client(&self) -> &Client {
        &self.system.parts.client
    }

    /// What is in the stream: its first and last sequence; and the end of the log.
    async fn state(&self) -> (u64, u64, i64) {
        let stream = jetstream(self.client()).get_stream(subject::STREAM).await.unwrap();
        let state = &stream.cached_info().state;
        (state.first_sequence, state.last_sequence, self.system.parts.log.head().await.unwrap())
    }
}

fn receipt(actor: &str) -> Value {
    json!({ "command_id": Uuid::now_v7(), "actor": actor, "data": { "sku": "mug", "quantity": 1 } })
}

/// Invariant 27. An answer is published with the rights of who answers, on the subject that the request names: no service
/// answers to anything but an inbox, whether it handles the request or NATS' own discovery does.
#[tokio::test]
async fn a_reply_subject_is_no_way_into_the_log() {
    let mut answering = Answering::start().await;
    answering.system.receive("mug", 1).await;
    answering.system.relay().await;
    let before = answering.state().await;
    let client = answering.client().clone();
    let notice = json!({ "notice_id": Uuid::now_v7(), "notice": {
        "customer_id": id(1), "order_id": id(2), "message": { "order_cancelled": { "reason": "fraud" } } } });
    let requests = [
        ("daybook.qry.v1.stock_level.list", json!({})),
        ("daybook.qry.v1.stock_level.get", json!({ "data": { "sku": "cup" } })),
        ("daybook.cmd.v1.stock.receive", receipt("thief")),
        ("daybook.provider.v1.lookup", json!({})),
        ("daybook.notify.v1", notice),
        ("$SRV.PING", json!({})),
        ("$SRV.INFO.daybook-queries", json!({})),
        ("$SRV.STATS.daybook-commands", json!({})),
    ];
    for (subject, body) in &requests {
        for reply in ["daybook.evt.v1.order.x.Y", "$JS.API.STREAM.DELETE.DAYBOOK", "_INBOXES.x", "_INBOX", "_INBOX.>"] {
            client.publish_with_reply(*subject, reply, body.to_string().into()).await.unwrap();
        }
        client.publish(*subject, body.to_string().into()).await.unwrap();
    }
    // What is asked by then has been let in, or not, once the same subjects have answered what came later.
    for (subject, body) in requests {
        let body = if subject.starts_with("daybook.cmd") { json!({}) } else { body };
        client.request(subject, body.to_string().into()).await.unwrap();
    }
    assert_eq!(answering.state().await, before, "nothing was published, deleted or recorded");
    let notices = answering.system.notices().await;
    assert_eq!(notices.len(), 1, "only what was answered was carried out: {notices:?}");
    let stats = client.request("$SRV.STATS.daybook-commands", "".into()).await.unwrap();
    let stats: Value = serde_json::from_slice(&stats.payload).unwrap();
    let receive = stats["endpoints"].as_array().unwrap().iter().find(|e| e["name"] == "stock-receive").unwrap();
    assert_eq!(
        (&receive["num_requests"], &receive["num_errors"], &receive["data"]["refused"]),
        (&json!(1), &json!(1), &json!(6)),
        "{stats}"
    );
    for service in answering.services {
        service.stop().await;
    }
    answering.system.project().await;
    answering.system.assert_verified().await;
}

/// Returns once the server has done all that the client asked of it before.
async fn round_trip(client: &Client) {
    assert!(client.request("nobody.listens", "".into()).await.is_err());
}

/// The server gives a request to one process only. What it has sent to a process, and the process has not read yet, nobody
/// else answers. What comes later is told that nobody is there.
#[tokio::test]
async fn a_service_that_ends_answers_what_was_sent_to_it() {
    let (nats, database_url) = tokio::join!(shipped_nats(), database());
    let parts = connect_to(&Urls {
        database_url,
        nats_url: format!("nats://client:{}@127.0.0.1:{}", password("client"), nats.port()),
    })
    .await
    .unwrap();
    let executor = parts.executor().await.unwrap();
    let of = async |user: &str| nats_as(nats.port(), user).process.connect(user).await.unwrap();
    let door = of("commands").await;
    let service = verbs::start(&door, executor).await.unwrap();
    answers_all_that_it_was_sent(&nats, service, &door, "client", "daybook.cmd.v1.stock.receive").await;
    let door = of("queries").await;
    let service = queries::start(&door, parts.read.clone()).await.unwrap();
    answers_all_that_it_was_sent(&nats, service, &door, "client", "daybook.qry.v1.order_summary.get").await;
    let door = of("provider").await;
    let service = provider::start(&door, parts.project.clone(), Duration::ZERO).await.unwrap();
    answers_all_that_it_was_sent(&nats, service, &door, "sender", "daybook.provider.v1.lookup").await;
    let door = of("notifier").await;
    let service = notifier::start(&door, parts.project.clone()).await.unwrap();
    answers_all_that_it_was_sent(&nats, service, &door, "sender", "daybook.notify.v1").await;
}

/// Ends the service while `user` asks it again and again.
async fn answers_all_that_it_was_sent(
    nats: &servers::Nats,
    service: Service,
    door: &Client,
    user: &str,
    subject: &str,
) {
    const BEFORE: usize = 1000;
    let asker = nats_as(nats.port(), user).process;
    let nobody = if user == "client" { "daybook.cmd.v1.nobody" } else { "daybook.provider.v1.nobody" };
    let (subject, inbox) = (subject.to_owned(), format!("_INBOX_{user}.answers"));
    let (tell, asked) = std::sync::mpsc::channel();
    let ended = Arc::new(AtomicBool::new(false));
    let end = ended.clone();
    // The server knows of the endpoints.
    _ = door.request(door.new_inbox(), "".into()).await;
    let asking = std::thread::spawn(move || {
        Runtime::new().unwrap().block_on(async move {
            let client = asker.connect("asker").await.unwrap();
            let mut answers = client.subscribe(format!("{inbox}.*")).await.unwrap();
            let ask = async |n: usize| {
                client.publish_with_reply(subject.clone(), format!("{inbox}.{n}"), "{".into()).await.unwrap();
            };
            for n in 0..BEFORE {
                ask(n).await;
            }
            // The server has them all.
            let round_trip = async || client.request(nobody, "".into()).await.unwrap_err();
            round_trip().await;
            tell.send(()).unwrap();
            let mut count = BEFORE;
            loop {
                let is_last = end.load(Ordering::Acquire);
                ask(count).await;
                count += 1;
                round_trip().await;
                if is_last {
                    break;
                }
            }
            let mut kinds = vec![None; count];
            for _ in 0..count {
                let late = Duration::from_secs(20);
                let Ok(Some(answer)) = tokio::time::timeout(late, answers.next()).await else { break };
                let n: usize = answer.subject.rsplit('.').next().unwrap().parse().unwrap();
                kinds[n] = Some(answer.status.is_none());
            }
            kinds
        })
    });
    // Nothing in this runtime goes on meanwhile: so the service has read none of it.
    asked.recv().unwrap();
    service.stop().await;
    door.flush().await.unwrap();
    ended.store(true, Ordering::Release);
    let kinds = tokio::task::spawn_blocking(move || asking.join().unwrap()).await.unwrap();
    let count = |kind| kinds.iter().filter(|is| **is == kind).count();
    assert_eq!(count(None), 0, "no answer to some of {}", kinds.len());
    assert!(kinds[..BEFORE].iter().all(|kind| *kind == Some(true)), "{} were refused", count(Some(false)));
    assert!(kinds.last() == Some(&Some(false)), "it takes nothing new");
}

/// A client of another account of the server comes in by an import. Then it is the server that names the reply subject.
#[tokio::test]
async fn other_accounts_are_answered_if_that_is_set() {
    let nats = nats_with(
        r#"accounts {
            D { jetstream: enabled, users: [{ user: daybook, password: secret }]
                exports: [{ service: "daybook.cmd.v1.>", accounts: [S] }] }
            S { users: [{ user: shop, password: secret, permissions: { publish: "daybook.cmd.v1.>" } }
                        { user: ledger, password: secret }]
                imports: [{ service: { account: D, subject: "daybook.cmd.v1.>" } }] }
        }"#,
    )
    .await;
    let (database_url, url) = (database().await, nats.url());
    let client = Nats::at(&format!("nats://shop:secret@127.0.0.1:{}", nats.port())).unwrap();
    let client = client.process.connect("shop").await.unwrap();
    let (subject, body) = ("daybook.cmd.v1.stock.receive", receipt("shop").to_string());
    let serve = async |prefixes| {
        let settings = [("NATS_USER", "daybook"), ("NATS_PASSWORD", "secret"), ("NATS_REPLY_PREFIXES", prefixes)];
        Serving::start(&database_url, &url, None, &settings).await
    };
    let serving = serve("").await;
    client.publish_with_reply(subject, "_INBOX.a", body.clone().into()).await.unwrap();
    until("it is refused", async || serving.messages().contains("no inbox that is answered").then_some(())).await;
    assert!(serving.messages().contains("_R_."), "{}", serving.messages());
    drop(serving);
    let _serving = serve("_INBOX,_R_").await;
    let answer = client.request(subject, body.into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!((&answer["recorded"], &answer["position"]), (&json!(true), &json!(1)), "{answer}");
    // What it costs: an answer may go to what the client may not publish to, in its own account.
    let ledger = Nats::at(&format!("nats://ledger:secret@127.0.0.1:{}", nats.port())).unwrap();
    let ledger = ledger.process.connect("ledger").await.unwrap();
    let mut entries = ledger.subscribe("ledger").await.unwrap();
    round_trip(&ledger).await;
    client.publish_with_reply(subject, "ledger", "{}".into()).await.unwrap();
    assert!(entries.next().await.unwrap().payload.starts_with(b"{\"code\":\"invalid\""));
    // Nobody but the server can name such a subject in Daybook's account.
    let (told, mut refused) = mpsc::unbounded_channel();
    let options = ConnectOptions::with_user_and_password("daybook".into(), "secret".into());
    let options = options.event_callback(move |event| {
        _ = told.send(event.to_string());
        async {}
    });
    let inside = options.connect(&url).await.unwrap();
    inside.publish_with_reply(subject, "_R_.a.b", receipt("thief").to_string().into()).await.unwrap();
    until("it is refused", async || refused.try_recv().ok()?.to_lowercase().contains("reply").then_some(())).await;
}

/// A warning a request would fill the disk of whoever is asked.
#[tokio::test]
async fn requests_that_cannot_be_answered_are_logged_now_and_then() {
    let nats = start_nats_with(None).await;
    let serving = Serving::start(&database().await, &nats.url(), None, &[]).await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    for _ in 0..1000 {
        client.publish("daybook.qry.v1.stock_level.list", "".into()).await.unwrap();
    }
    client.request("daybook.qry.v1.stock_level.list", "".into()).await.unwrap();
    let told = serving.messages().matches("a request was not carried out").count();
    assert!((1..10).contains(&told), "{told} of 1000\n{}", serving.messages());
}

/// Only the system acts under its own names.
#[tokio::test]
async fn the_names_of_the_system_are_reserved() {
    let answering = Answering::start().await;
    for (actor, is_free) in [
        ("daybook", false),
        ("Daybook", false),
        ("olist", false),
        // What does not show, and other forms of the same letters.
        ("daybook\u{200B}", false),
        ("day\u{AD}book", false),
        ("\u{202E}koobyad", false),
        ("\u{3164}", false),
        ("dayboo\u{212A}", false),
        ("\u{FF44}aybook", false),
        ("daybook-shop", true),
        ("Zoë", true),
    ] {
        let answer = answering.client().request("daybook.cmd.v1.stock.receive", receipt(actor).to_string().into());
        let answer = answer.await.unwrap();
        let body: Value = serde_json::from_slice(&answer.payload).unwrap();
        match is_free {
            true => assert_eq!(body["recorded"], true, "{body}"),
            false => {
                let told = (&body["code"], &body["fields"][0]["field"]);
                assert_eq!(told, (&json!("invalid"), &json!("actor")), "{actor:?}: {body}");
            }
        }
    }
}

fn is_ascii(headers: &HeaderMap) -> bool {
    headers.iter().flat_map(|(_, values)| values).all(|value| value.as_str().bytes().all(|b| matches!(b, b' '..=b'~')))
}

/// Some clients lose all headers of a message that has one beyond ASCII.
#[tokio::test]
async fn headers_are_ascii_whoever_asks() {
    let mut answering = Answering::start().await;
    let client = answering.client().clone();
    let command = receipt("Zoë").to_string();
    client.request("daybook.cmd.v1.stock.receive", command.into()).await.unwrap();
    answering.system.relay().await;
    let stream = jetstream(&client).get_stream(subject::STREAM).await.unwrap();
    let message = stream.get_raw_message(1).await.unwrap();
    assert!(is_ascii(&message.headers) && format!("{:?}", message.headers).contains("Zo%C3%AB"), "{message:?}");
}

/// Invariant 27: a message that is not the log's, and stays there for the relay is away, makes no loop without rest.
#[tokio::test]
async fn a_forged_message_does_not_keep_jetstream_busy() {
    for fits_the_chain in [false, true] {
        let mut system = System::start().await;
        system.receive("mug", 1).await;
        system.project().await;
        let mut created = system.parts.client.subscribe("$JS.API.CONSUMER.CREATE.>").await.unwrap();
        crate::one_history::histories::publish_forged(&system, fits_the_chain).await;
        for _ in 0..40 {
            // It looks for two seconds at most; projections look as often as it does.
            system.feed.step().await.unwrap();
            for projector in &mut system.projectors {
                projector.step().await.unwrap();
            }
        }
        let mut consumers = 0;
        while let Some(Some(_)) = created.next().now_or_never() {
            consumers += 1;
        }
        assert!(consumers < 8, "{consumers} consumers");
        // When the relay is there, all goes on.
        system.receive("mug", 2).await;
        system.project().await;
        assert_eq!(system.stock_of("mug").await, (3, 0));
        system.assert_verified().await;
    }
}

/// What others publish is removed, and kept: not as often as they like.
#[tokio::test]
async fn who_publishes_without_an_end_does_not_have_the_stream_made_anew_without_an_end() {
    let mut system = System::start().await;
    system.receive("mug", 1).await;
    system.relay().await;
    let (client, mut mended) = (system.parts.client.clone(), 0);
    let error = loop {
        let context = jetstream(&client);
        context.publish("daybook.evt.v1.order.x.Y", "{}".into()).await.unwrap().await.unwrap();
        system.receive("mug", 1).await;
        match until_idle(&mut system).await {
            Ok(()) => mended += 1,
            Err(error) => break error,
        }
        assert!(mended < 100);
    };
    assert!(matches!(error, RelayError::Disturbed) && mended >= 10, "{error}: {mended}");
    assert!(error.to_string().contains("deploy/nats/daybook.conf"), "{error}");
}

async fn until_idle(system: &mut System) -> Result<(), RelayError> {
    while system.relay.step().await? != Outcome::Idle {}
    Ok(())
}

/// One of the users of the shipped configuration, and what the server refuses to it.
struct User {
    client: Client,
    refused: mpsc::UnboundedReceiver<String>,
}

impl User {
    async fn new(port: u16, user: &str) -> Self {
        let (told, refused) = mpsc::unbounded_channel();
        let options = ConnectOptions::with_user_and_password(user.to_owned(), password(user));
        let options = options.custom_inbox_prefix(format!("_INBOX_{user}")).event_callback(move |event| {
            if let Event::ServerError(error) = event {
                told.send(error.to_string()).unwrap();
            }
            async {}
        });
        Self { client: options.connect(format!("nats://127.0.0.1:{port}")).await.unwrap(), refused }
    }

    async fn may_not_publish(&mut self, subject: &str) {
        self.client.publish(subject.to_owned(), "{}".into()).await.unwrap();
        self.is_refused("Publish", subject).await;
    }

    async fn may_not_subscribe(&mut self, subject: &str) {
        _ = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.is_refused("Subscription", subject).await;
    }

    async fn is_refused(&mut self, what: &str, subject: &str) {
        self.client.flush().await.unwrap();
        let refused = tokio::time::timeout(Duration::from_secs(20), self.refused.recv()).await;
        let refused = refused.unwrap_or_else(|_| panic!("{what} to {subject} was let through")).unwrap();
        let wanted = format!("permissions violation for {what} to \"{subject}\"").to_lowercase();
        assert!(refused.to_lowercase().contains(&wanted), "{refused}, not {wanted}");
    }
}

/// The configuration as it is shipped: forging, eavesdropping and foreign replies are refused by the server.
#[tokio::test]
async fn the_shipped_configuration_refuses_what_no_role_needs() {
    let text = fs::read_to_string(SHIPPED).unwrap();
    let used =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).any(|line| line.contains("allow_responses"));
    assert!(!used, "it lets a service publish to any subject that a requester names");
    let nats = shipped_nats().await;
    assert!(!is_let_in(&[("NATS_URL", &nats.url())]).await, "nobody comes in without a login");
    for user in USERS {
        let mut one = User::new(nats.port(), user).await;
        // Forging, and giving orders to JetStream.
        if user != "relay" {
            one.may_not_publish("daybook.evt.v1.order.x.Y").await;
        }
        if !["relay", "operator"].contains(&user) {
            one.may_not_publish("$JS.API.STREAM.DELETE.DAYBOOK").await;
            one.may_not_publish("$JS.API.STREAM.UPDATE.DAYBOOK").await;
        }
        for other in
            ["$JS.API.STREAM.PURGE.DAYBOOK", "$JS.API.STREAM.MSG.DELETE.DAYBOOK", "$JS.API.STREAM.CREATE.OTHER"]
        {
            one.may_not_publish(other).await;
        }
        if user != "provider" {
            one.may_not_publish("daybook.cmd.v1.payment.record_notice").await;
        }
        // Answering in the name of others, or into the hands of those whom it does not serve.
        one.may_not_publish("_INBOX.x.y").await;
        one.may_not_publish("_INBOX_relay.x.y").await;
        one.may_not_publish("_INBOX_projectors.x.y").await;
        if !["commands", "queries"].contains(&user) {
            one.may_not_publish("_INBOX_client.x.y").await;
        }
        // Eavesdropping.
        for other in USERS.into_iter().filter(|other| *other != user) {
            one.may_not_subscribe(&format!("_INBOX_{other}.>")).await;
        }
        for all in
            [">", "_INBOX.>", "daybook.>", "daybook.evt.v1.>", "daybook.cmd.v1.>", "daybook.provider.v1.>", "$JS.>"]
        {
            one.may_not_subscribe(all).await;
        }
        assert!(one.refused.try_recv().is_err(), "{user}: nothing else was refused");
    }
}

/// A `daybook serve` of some roles, or all, in a process of its own.
struct Serving {
    _child: Child,
    messages: PathBuf,
}

impl Serving {
    async fn start(database_url: &str, nats_url: &str, user: Option<&str>, settings: &[(&str, &str)]) -> Self {
        let messages = folder("serve").await.with_extension("messages");
        let mut command = daybook();
        command.arg("serve").env("DATABASE_URL", database_url).env("NATS_URL", nats_url);
        if let Some(user) = user {
            command.args(["--role", user]).envs(as_user(user));
        }
        command.envs(settings.iter().copied()).stderr(fs::File::create(&messages).unwrap());
        let serving = Self { _child: command.spawn().unwrap(), messages };
        until("it serves", async || serving.messages().contains("ready").then_some(())).await;
        serving
    }

    fn messages(&self) -> String {
        fs::read_to_string(&self.messages).unwrap()
    }
}

/// The settings of one of the users.
fn as_user(user: &str) -> [(&'static str, String); 3] {
    [("NATS_USER", user.to_owned()), ("NATS_PASSWORD", password(user)), ("NATS_INBOX_PREFIX", format!("_INBOX_{user}"))]
}

/// A verb of a user's; clients have no database.
async fn run_as(user: &str, servers: &[(&str, &str)], arguments: &str) -> Output {
    let mut command = daybook();
    command.args(arguments.split(' ')).envs(servers.iter().copied()).envs(as_user(user));
    command.output().await.unwrap()
}

/// Each role is a process and a user of its own, and an order goes its way from a client to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_goes_its_way_under_the_shipped_configuration() {
    let (nats, database_url) = tokio::join!(shipped_nats(), database());
    let url = nats.url();
    let roles = ["relay", "commands", "queries", "projectors", "sender", "provider", "notifier"];
    let serving = roles.map(|role| Serving::start(&database_url, &url, Some(role), &[]));
    let serving = futures_util::future::join_all(serving).await;
    let client = nats_as(nats.port(), "client").process.connect("shop").await.unwrap();
    let answered = async |verb: &str, data: Value| -> Value {
        let body = json!({ "command_id": Uuid::now_v7(), "actor": "Zoë", "data": data }).to_string();
        let answer = client.request(format!("daybook.cmd.v1.{verb}"), body.into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["recorded"], true, "{answer}");
        answer
    };
    let received = answered("stock.receive", json!({ "sku": "mug", "quantity": 10 })).await;
    let order = Uuid::now_v7();
    let placed = json!({ "order_id": order, "order": order_of(&[("mug", 2, 1)]) });
    answered("order.place", placed).await;
    let query = async |model: &str, data: Value| -> Value {
        let body = json!({ "at_least": received["position"], "data": data }).to_string();
        let answer = client.request(format!("daybook.qry.v1.{model}"), body.into()).await.unwrap();
        serde_json::from_slice::<Value>(&answer.payload).unwrap()["data"].clone()
    };
    let status = async |wanted: &str| {
        let row = query("order_summary.get", json!({ "order_id": order })).await;
        (row["status"] == wanted).then_some(())
    };
    until("it is confirmed", async || status("confirmed").await).await;
    let shipment = until("its shipment is planned", async || {
        query("fulfilment.list", json!({})).await.as_array()?.first().cloned()
    })
    .await;
    let (id, revision) = (&shipment["shipment_id"], &shipment["revision"]);
    answered("shipment.dispatch", json!({ "shipment_id": id, "revision": revision, "tracking": "T1" })).await;
    // As an earlier build may have recorded it: what does not show is refused in names now.
    let mut delivered = crate::harness::envelope(
        Uuid::now_v7(),
        DomainCommand::Shipment {
            id: ShipmentId(id.as_str().unwrap().parse().unwrap()),
            command: shipment::Command::ConfirmDelivery,
        },
    );
    delivered.actor = "Zo\u{202E}ë".into();
    crate::harness::executor(&database_url).execute(&delivered).await.unwrap();
    until("it is completed", async || status("completed").await).await;

    // The command line, as a client without a database: what an actor is called steers no terminal.
    let history = run_as("client", &[("NATS_URL", &url)], &format!("order history {order}")).await;
    let shown = String::from_utf8(history.stdout).unwrap();
    assert!(history.status.success() && shown.contains(r"(Zo\u202eë)") && !shown.contains('\u{202E}'), "{shown}");
    // An operator checks all of it.
    let servers = [("NATS_URL", &*url), ("DATABASE_URL", &*database_url)];
    for verb in ["verify --books", "reconcile", "reconcile --report"] {
        let done = run_as("operator", &servers, verb).await;
        assert_eq!(done.status.code(), Some(0), "{verb}: {done:?}");
    }
    let found = check(&nats_as(nats.port(), "operator")).await;
    assert!(found.iter().all(|finding| finding.level == Level::Ok), "{found:?}");
    for (role, serving) in roles.iter().zip(&serving) {
        let messages = serving.messages();
        assert!(!messages.contains("ermissions") && !messages.contains("secret"), "{role}: {messages}");
    }
}

/// In a process of all roles, the relay is another user than the rest.
#[tokio::test]
async fn the_relay_of_a_process_has_a_login_of_its_own() {
    let all_but_the_relay = r#"
        accounts { D { jetstream: enabled, users: [
            { user: rest, password: secret_of_rest, permissions: { publish: { deny: "daybook.evt.v1.>" } } }
            { user: relay, password: secret_of_relay }
        ] } }"#;
    let nats = nats_with(all_but_the_relay).await;
    let context = file_with(&json!({ "user": "relay", "password": "secret_of_relay" }).to_string()).await;
    let database_url = database().await;
    let rest = [("NATS_USER", "rest"), ("NATS_PASSWORD", "secret_of_rest"), ("NATS_RELAY_CONTEXT_FILE", &context)];
    let _serving = Serving::start(&database_url, &nats.url(), None, &rest).await;
    let client = Nats::at(&format!("nats://rest:secret_of_rest@127.0.0.1:{}", nats.port())).unwrap();
    let client = client.process.connect("test").await.unwrap();
    client.request("daybook.cmd.v1.stock.receive", receipt("shop").to_string().into()).await.unwrap();
    let context = jetstream(&client);
    until("it is in JetStream", async || {
        let stream = context.get_stream(subject::STREAM).await.ok()?;
        (stream.cached_info().state.last_sequence == 1).then_some(())
    })
    .await;
}

/// What is wrong is told with what to do.
#[tokio::test]
async fn the_doctor_is_told_what_is_wrong_with_nats() {
    let told = async |nats: &Nats| {
        let found = check(nats).await.into_iter().filter(|finding| finding.level != Level::Ok);
        found.map(|finding| finding.to_string()).collect::<Vec<_>>().join("\n")
    };
    let without =
        nats_with("jetstream: disabled\nmax_payload: 4096\nauthorization { user: a, password: secret }").await;
    let login = Nats::at(&format!("nats://a:secret@127.0.0.1:{}", without.port())).unwrap();
    let said = told(&login).await;
    assert!(said.contains("set max_payload"), "{said}");
    let said = told(&Nats::at(&without.url()).unwrap()).await;
    assert!(said.contains("refuses the login") && !said.contains("secret"), "{said}");
    let mut system = System::start().await;
    let mut nats = Nats::at(&system.urls.nats_url).unwrap();
    assert!(told(&nats).await.contains("JetStream has no stream DAYBOOK: run `daybook serve --role relay`"));
    system.relay().await;
    assert_eq!(told(&nats).await, "");
    nats.replicas = Some(3);
    assert!(told(&nats).await.contains("NATS_REPLICAS is 3"));
}
