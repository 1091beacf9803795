//! How a command reaches the account: the server that runs, or the ledger in its turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use super::*;

/// Far longer than any other answer may be in coming.
const LONG: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_second_opener_is_told_in_the_end_why_it_can_not() {
    let rig = Rig::new().await;
    let dir = DataDir::new(rig.temp.path().join("data"));
    // A note of a server that is gone is passed over.
    let note = br#"{"pid":1,"admin":"http://127.0.0.1:1","secret":"msl_x"}"#;
    write_file(&dir.serving(), note, Readers::Owner).expect("written");
    let error = Client::connect(&dir).await.map(|_| ()).expect_err("in use");
    assert!(error.to_string().contains("is in use"), "{error:#}");
}

#[tokio::test]
async fn a_command_waits_while_another_has_the_ledger() {
    let Rig { temp, client, .. } = Rig::new().await;
    let dir = DataDir::new(temp.path().join("data"));
    let other = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(client);
    };
    let (found, ()) = tokio::join!(Client::connect(&dir), other);
    assert!(found.expect("its turn comes").server().is_none());
}

/// As one that was suspended: the system takes its connections.
#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_not_waited_for_without_end() {
    let Rig { temp, client: _held, .. } = Rig::new().await;
    let dir = DataDir::new(temp.path().join("data"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    let note = format!(r#"{{"pid":1,"admin":"http://{address}","secret":"msl_x"}}"#);
    write_file(&dir.serving(), note.as_bytes(), Readers::Owner).expect("written");
    let error = Client::connect(&dir).await.map(drop).expect_err("silent");
    assert!(error.to_string().contains("did not answer"), "{error:#}");
    let mut out = Vec::new();
    doctor::doctor(&dir, &mut Printer::new(&mut out, false)).await.expect_err("a failed check");
    let told = String::from_utf8(out).expect("text");
    assert!(told.contains("fail  ledger: the server at"), "{told}");
}

/// A server that takes [`LONG`] to read its ledger, whose backup is `backup`; it tells so many `times` that it is there.
fn slow_server(times: usize, backup: Vec<u8>) -> Router {
    let told = Arc::new(AtomicUsize::new(0));
    let accounts = move || {
        let tells = told.fetch_add(1, Ordering::Relaxed) < times;
        async move {
            if !tells {
                core::future::pending::<()>().await;
            }
            r#"{"success":true,"result":[{"id":"a"}]}"#
        }
    };
    let at_length = |answer: Vec<u8>| {
        get(move || async {
            tokio::time::sleep(LONG).await;
            answer
        })
    };
    let verified = br#"{"success":true,"result":{"sound":true,"count":7,"head":"ab"}}"#;
    Router::new()
        .route("/client/v4/accounts", get(accounts))
        .route("/client/v4/accounts/a/muster/audit/verify", at_length(verified.to_vec()))
        .route("/client/v4/accounts/a/muster/backup", at_length(backup))
}

/// What becomes of a command at such a server.
async fn ask(rig: &mut Rig, server: Router, line: &[&str]) -> Result<String, String> {
    let dir = DataDir::new(rig.temp.path().join("data"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let note = format!(r#"{{"pid":1,"admin":"http://{address}","secret":"msl_x"}}"#);
    write_file(&dir.serving(), note.as_bytes(), Readers::Owner).expect("written");
    let asking = async {
        rig.client = Client::connect(&dir).await.expect("a client");
        rig.run(line).await
    };
    tokio::select! {
        ended = axum::serve(listener, server) => panic!("{ended:?}"),
        answer = asking => answer,
    }
}

#[tokio::test(start_paused = true)]
async fn what_reads_the_whole_ledger_is_waited_for_while_the_server_lives() {
    let mut rig = Rig::new().await;
    let (sound, copy) = (rig.temp.path().join("sound"), rig.temp.path().join("copy"));
    rig.ok(&["backup", sound.to_str().expect("plain")]).await;
    let sound = std::fs::read(sound).expect("a backup");
    let lives = |backup: &[u8]| slow_server(usize::MAX, backup.to_vec());
    let verified = ask(&mut rig, lives(&[]), &["audit", "verify"]).await.expect("verified");
    assert!(verified.starts_with("The audit is intact: 7 entries"), "{verified}");
    ask(&mut rig, lives(&sound), &["backup", copy.to_str().expect("plain")]).await.expect("written");
    assert_eq!(std::fs::read(&copy).expect("a backup"), sound);
    // The note is found, and then nothing more is heard.
    let silent = ask(&mut rig, slow_server(1, sound), &["audit", "verify"]).await.expect_err("silent");
    assert!(silent.contains("did not answer"), "{silent}");
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_did_not_come_whole_is_not_kept() {
    let mut rig = Rig::new().await;
    let folder = rig.temp.path().join("copies");
    std::fs::create_dir(&folder).expect("made");
    let target = folder.join("copy").to_str().expect("plain").to_owned();
    rig.ok(&["backup", &target]).await;
    let sound = std::fs::read(&target).expect("a backup");
    std::fs::remove_file(&target).expect("removed");
    for length in [0, 1, 100, sound.len() / 2, sound.len() - 9, sound.len() - 1] {
        let server = slow_server(usize::MAX, sound[..length].to_vec());
        let refused = ask(&mut rig, server, &["backup", &target]).await.expect_err("cut short");
        assert!(refused.contains("did not come whole"), "{length}: {refused}");
        assert_eq!(std::fs::read_dir(&folder).expect("reads").count(), 0, "{length}");
    }
}

#[tokio::test]
async fn a_running_server_is_found_by_its_note() {
    let Rig { temp, client, .. } = Rig::new().await;
    drop(client);
    let dir = DataDir::new(temp.path().join("data"));
    let mut config = server::configuration(&dir).expect("a configuration");
    config.listen_admin = "127.0.0.1:0".parse().expect("an address");
    let roles = Roles { admin: true, edge: false, enroll: false };
    let server = Server::start(dir.clone(), config, roles, Clock::system()).await.expect("a server");
    let stop = CancellationToken::new();
    let (ready, accepts) = tokio::sync::oneshot::channel();
    let running =
        server.run(stop.clone(), move || ready.send(()).map_err(|()| anyhow::anyhow!("nobody waits")));
    let asking = async {
        accepts.await.expect("ready");
        let client = Client::connect(&dir).await.expect("a client");
        assert!(client.server().is_some());
        let rig = Rig { temp, client, made: None };
        rig.ok(&["zone", "add", "b.example"]).await;
        let lines: String = (0..1_500).map(|number| format!("d{number}\n")).collect();
        let file = rig.file("fleet.csv", &format!("id\n{lines}"));
        rig.ok(&["device", "import", &file]).await;
        assert_eq!(rig.json(&["device", "list"]).await.as_array().expect("a list").len(), 1_500);
        rig.ok(&["backup", rig.temp.path().join("copy").to_str().expect("plain")]).await;
        assert!(rig.refused(&["device", "show", "x"]).await.contains("no such device"));
        let followed = rig.ok(&["event", "follow", "--since", "0", "--count", "2", "--json"]).await;
        let numbers: Vec<Value> =
            followed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(numbers.iter().map(|event| &event["number"]).collect::<Vec<_>>(), [1, 2]);
        let text = rig.ok(&["event", "follow", "--since", "0", "--count", "1"]).await;
        assert!(text.starts_with("1  ") && text.contains("account-created"), "{text}");
        let none = rig.refused(&["connection", "list", "--host", "x.b.example"]).await;
        assert!(none.contains("no edge runs"), "{none}");
        let none = rig.refused(&["connection", "close", "7"]).await;
        assert!(none.contains("no edge runs"), "{none}");
        // Nobody listens at port 1.
        let made = rig.json(&["webhook", "add", "https://127.0.0.1:1/hook"]).await;
        let id = made["id"].as_str().expect("an id");
        let failed = rig.refused(&["webhook", "test", id]).await;
        assert!(failed.starts_with("The test was not taken: "), "{failed}");
        assert!(rig.ok(&["webhook", "redeliver", id]).await.is_empty(), "nothing was given up");
        assert!(rig.refused(&["webhook", "redeliver", id, "7"]).await.contains("no such dead letter"));
        stop.cancel();
        rig.temp
    };
    let (ended, temp) = tokio::join!(running, asking);
    ended.expect("drained");
    let client = Client::connect(&dir).await.expect("the ledger is free again");
    assert!(client.server().is_none());
    drop(temp);
}
