//! The device's own topics: what it is, when its certificate ends, and commands to it.
//!
//! Below the prefix: `status` (retained; the broker says `{"online":false}` there when the device is lost) and
//! `certificate` (retained), both at QoS 1; `command` is subscribed and answered on `response`. A retained
//! command is ignored: it would be carried out again at each connect. A new identity is tried on here first:
//! the session leaves in order, comes back with the candidate, and a CONNACK accepts it; refused or
//! unreachable, it comes back with the one in use.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Packet,
    Publish, QoS, Transport,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::breaker::{PAUSE_MAX, broken_pause, pauses};
use super::bridge::Bridge;
use super::clock;
use super::config::{self, Commands};
use super::health::RelayHealth;
use super::report::{Answer, Asked, Report};
use super::tryon::{Fit, await_alert, fit_of_dial};
use super::upstream::{Upstream, refusal};
use crate::identity::{Identities, Identity, Verdict};

/// Keep alive: short enough that `online` is true within a minute, long enough for metered links.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Time for the broker's CONNACK.
const CONNACK_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest packet that is read: a command is small.
const INCOMING_MAX_BYTES: usize = 8 * 1024;
/// Time to leave in order.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Requests to, and events from rumqttc that wait.
const QUEUE: usize = 16;

/// What a command asks of the agent's other half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Renew now, whatever the certificate's age.
    Renew,
}

/// The telemetry task.
#[derive(Debug)]
pub(super) struct Telemetry {
    pub(super) config: config::Telemetry,
    pub(super) upstream: Arc<Upstream>,
    pub(super) health: Arc<RelayHealth>,
    pub(super) identities: Identities,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) shutdown: CancellationToken,
}

/// Why a connection ended, or never was.
enum End {
    /// The broker does not take the identity.
    Refused(String),
    /// Anything of the network.
    Failed(String),
    /// There is another identity to use, or a command asked for it: connect at once.
    Again,
    /// The agent stops.
    Stopping,
}

/// What is known of the candidate.
#[derive(Debug, Default)]
struct Tried {
    /// It was judged: accepted and soon in use, or refused.
    judged: Option<Arc<Identity>>,
    /// Nobody judged it; not again before this.
    not_before: Option<Instant>,
}

impl Telemetry {
    pub(super) async fn run(mut self) {
        let started = Instant::now();
        let (mut tried, mut pauses) = (Tried::default(), pauses());
        loop {
            let Some((identity, is_candidate)) = self.choose(&tried) else {
                tokio::select! {
                    is_there = self.identities.changed() => if is_there { continue } else { return },
                    () = self.shutdown.cancelled() => return,
                }
            };
            let mut is_taken = false;
            let end = Box::pin(self.connect(&identity, &tried, started, is_candidate, &mut is_taken)).await;
            if is_taken {
                pauses = super::breaker::pauses();
                if is_candidate {
                    tried.judged = Some(Arc::clone(&identity));
                }
            }
            let refused = if let End::Refused(why) = &end { Some(why.clone()) } else { None };
            let (why, pause) = match end {
                End::Stopping => return,
                End::Again => continue,
                End::Refused(why) => (why, pauses.next().unwrap_or(PAUSE_MAX)),
                // All agents see a broker's restart in the same moment.
                End::Failed(why) if is_taken => (why, broken_pause()),
                End::Failed(why) => (why, pauses.next().unwrap_or(PAUSE_MAX)),
            };
            self.health.failed(&why);
            if is_candidate && !is_taken {
                self.fall_back(&mut tried, &identity, refused, &why, pause).await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                is_there = self.identities.changed() => if !is_there { return },
                () = self.shutdown.cancelled() => return,
            }
        }
    }

    /// The candidate did not work: note what that means for it.
    async fn fall_back(
        &self,
        tried: &mut Tried,
        identity: &Arc<Identity>,
        refused: Option<String>,
        why: &str,
        pause: Duration,
    ) {
        let refused = match refused {
            Some(why) => Some(why),
            // A server that closes in anger may cut its own alert off: ask again without sending anything.
            None => match await_alert(&self.upstream, identity).await {
                Fit::Refused(why) => Some(why),
                Fit::Accepted | Fit::Unknown(_) => None,
            },
        };
        if let Some(why) = refused {
            tried.judged = Some(Arc::clone(identity));
            self.identities.judge(Verdict::Refused { identity: Arc::clone(identity), why }).await;
        } else {
            tracing::warn!(why, "the new certificate could not be tried yet");
            tried.not_before = Instant::now().checked_add(pause);
        }
    }

    /// The identity to use now, and whether it is the candidate.
    fn choose(&self, tried: &Tried) -> Option<(Arc<Identity>, bool)> {
        let held = self.identities.held();
        let is_early = tried.not_before.is_some_and(|at| at > Instant::now());
        let candidate = held.candidate.filter(|candidate| {
            let is_fresh = tried.judged.as_ref().is_none_or(|judged| !judged.is_same(candidate));
            is_fresh && (!is_early || held.in_use.is_none()) && candidate.not_after > clock::now()
        });
        match candidate {
            Some(candidate) => Some((candidate, true)),
            None => {
                held.in_use.filter(|identity| identity.not_after > clock::now()).map(|used| (used, false))
            }
        }
    }

    async fn connect(
        &mut self,
        identity: &Arc<Identity>,
        tried: &Tried,
        started: Instant,
        is_candidate: bool,
        is_taken: &mut bool,
    ) -> End {
        let dialled = tokio::select! {
            dialled = self.upstream.dial(identity) => dialled,
            () = self.shutdown.cancelled() => return End::Stopping,
        };
        let stream = match dialled {
            Ok(stream) => stream,
            Err(fault) => {
                return match fit_of_dial(&fault) {
                    Fit::Refused(why) => End::Refused(why),
                    Fit::Accepted | Fit::Unknown(_) => End::Failed(fault.to_string()),
                };
            }
        };
        let bridge = match Bridge::new() {
            Ok(bridge) => bridge,
            Err(error) => return End::Failed(format!("no local socket for the MQTT client: {error}")),
        };
        let report = Report::new(&self.config.prefix, identity, started);
        let (client, events) = AsyncClient::new(self.options(&report, bridge.name(), identity), QUEUE);
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut live = Live { client, report, retry_candidate_at: tried.not_before, receiver };
        let carrying = bridge.carry(stream);
        let polling = poll(events, sender);
        tokio::pin!(carrying, polling);
        let mut session = Box::pin(self.session(&mut live, tried, identity, is_candidate, is_taken));
        // The session first: after an error of rumqttc the bytes end too, and only the error has the reason.
        let (mut end, is_open) = tokio::select! {
            biased;
            end = &mut session => (end, true),
            carried = &mut carrying => (of_carried(carried), false),
            never = &mut polling => match never {},
        };
        if !is_open && matches!(end, End::Failed(_)) {
            // What the broker said before it closed is with rumqttc still; it may be why.
            let last = async {
                tokio::select! { end = &mut session => end, never = &mut polling => match never {} }
            };
            if let Ok(refused @ End::Refused(_)) = tokio::time::timeout(LEAVE_TIMEOUT, last).await {
                end = refused;
            }
        }
        drop(session);
        // Leave in order, so that no will is published; the broker may be gone already.
        if is_open && live.client.try_disconnect().is_ok() {
            let leaving = async {
                tokio::select! { _ = carrying => {}, never = polling => match never {} }
            };
            let _ = tokio::time::timeout(LEAVE_TIMEOUT, leaving).await;
        }
        end
    }
}

/// A connection that rumqttc drives.
struct Live {
    client: AsyncClient,
    report: Report,
    retry_candidate_at: Option<Instant>,
    receiver: mpsc::Receiver<Result<Event, ConnectionError>>,
}

impl Telemetry {
    fn options(&self, report: &Report, socket: &str, identity: &Identity) -> MqttOptions {
        let client = format!("{}{}", identity.device, self.config.client_suffix);
        let mut options = MqttOptions::new(client, socket, 0);
        options.set_transport(Transport::unix());
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_max_packet_size(INCOMING_MAX_BYTES, INCOMING_MAX_BYTES);
        options.set_last_will(LastWill::new(
            report.topic("status"),
            super::report::OFFLINE,
            QoS::AtLeastOnce,
            true,
        ));
        options
    }

    /// From CONNACK to the end of a connection.
    async fn session(
        &mut self,
        live: &mut Live,
        tried: &Tried,
        identity: &Arc<Identity>,
        is_candidate: bool,
        is_taken: &mut bool,
    ) -> End {
        if let Err(end) = self.await_connack(live).await {
            return end;
        }
        *is_taken = true;
        self.health.succeeded();
        let _open = self.health.open();
        if is_candidate {
            self.identities.judge(Verdict::Accepted { identity: Arc::clone(identity) }).await;
        }
        live.begin(self.config.commands);
        let mut interval = tokio::time::interval(self.config.interval);
        loop {
            tokio::select! {
                _ = interval.tick() => live.tell("status", live.report.status()),
                event = live.receiver.recv() => match event {
                    Some(Ok(Event::Incoming(Packet::Publish(publish)))) => {
                        if self.obey(live, &publish) == Some(Asked::Reconnect) {
                            return End::Again;
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return of_event(&error),
                    None => return End::Failed("the MQTT client ended".to_owned()),
                },
                is_there = self.identities.changed() => {
                    if !is_there {
                        return End::Stopping;
                    }
                    let chosen = self.choose(tried);
                    if chosen.is_none_or(|(chosen, _)| !chosen.is_same(identity)) {
                        return End::Again;
                    }
                }
                () = at(live.retry_candidate_at) => return End::Again,
                () = tokio::time::sleep(clock::left_until(identity.not_after)) => return End::Again,
                () = self.shutdown.cancelled() => {
                    live.tell("status", super::report::OFFLINE.to_owned());
                    return End::Stopping;
                }
            }
        }
    }

    async fn await_connack(&self, live: &mut Live) -> Result<(), End> {
        let awaiting = async {
            loop {
                match live.receiver.recv().await {
                    Some(Ok(Event::Incoming(Packet::ConnAck(_)))) => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(of_event(&error)),
                    None => return Err(End::Failed("the MQTT client ended".to_owned())),
                }
            }
        };
        tokio::select! {
            answered = tokio::time::timeout(CONNACK_TIMEOUT, awaiting) => {
                answered.unwrap_or_else(|_| Err(End::Failed("the broker did not answer CONNECT".to_owned())))
            }
            () = self.shutdown.cancelled() => Err(End::Stopping),
        }
    }

    /// Carry out a command and answer it.
    fn obey(&self, live: &Live, publish: &Publish) -> Option<Asked> {
        if publish.retain || publish.topic != live.report.topic("command") {
            return None;
        }
        let asked = Asked::parse(&publish.payload);
        let (accepted, words) = match &asked {
            Ok(Asked::Status) => {
                live.tell("status", live.report.status());
                (true, "published".to_owned())
            }
            Ok(Asked::Reconnect) => (true, "connecting anew".to_owned()),
            Ok(Asked::Renew) => match self.commands.try_send(Command::Renew) {
                Ok(()) => (true, "a renewal is asked for".to_owned()),
                Err(_) => (false, "earlier commands are still waiting; try again later".to_owned()),
            },
            Err(words) => (false, words.clone()),
        };
        let command = asked.ok();
        live.answer(&Answer { command, accepted, words });
        command
    }
}

impl Live {
    /// What a session begins with.
    fn begin(&self, commands: Commands) {
        self.tell("certificate", self.report.certificate());
        if commands == Commands::Taken
            && let Err(error) = self.client.try_subscribe(self.report.topic("command"), QoS::AtLeastOnce)
        {
            tracing::warn!(%error, "commands are not subscribed");
        }
    }

    /// Publish for good: retained, at QoS 1.
    fn tell(&self, word: &str, payload: String) {
        self.publish(word, true, payload);
    }

    fn answer(&self, answer: &Answer) {
        self.publish("response", false, answer.json());
    }

    /// Never waits: the task that would make room is the one that calls.
    fn publish(&self, word: &str, retain: bool, payload: String) {
        let topic = self.report.topic(word);
        if let Err(error) = self.client.try_publish(topic, QoS::AtLeastOnce, retain, payload) {
            tracing::warn!(%error, word, "not published: the broker is behind");
        }
    }
}

/// Drive rumqttc until the first error: its own reconnecting would use the same socket again.
///
/// Does not end then, so that whoever receives the events is not overtaken by that.
async fn poll(mut events: EventLoop, sender: mpsc::Sender<Result<Event, ConnectionError>>) -> Infallible {
    loop {
        let event = events.poll().await;
        let is_over = event.is_err();
        if sender.send(event).await.is_err() || is_over {
            break;
        }
    }
    drop(events);
    std::future::pending().await
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn of_carried(carried: std::io::Result<()>) -> End {
    match carried {
        Ok(()) => End::Failed("the broker closed the connection".to_owned()),
        Err(error) => match refusal(&error) {
            Some(why) => End::Refused(why),
            None => End::Failed(format!("the connection to the broker broke: {error}")),
        },
    }
}

fn of_event(error: &ConnectionError) -> End {
    match error {
        ConnectionError::ConnectionRefused(
            code @ (ConnectReturnCode::BadClientId
            | ConnectReturnCode::BadUserNamePassword
            | ConnectReturnCode::NotAuthorized),
        ) => End::Refused(format!("the broker refused CONNECT: {code:?}")),
        error => End::Failed(error.to_string()),
    }
}
