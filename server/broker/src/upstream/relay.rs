//! One client between its connection and the one to the other broker.

use std::collections::HashMap;

use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use super::rewrite::{self, Bounds};
use crate::config::{OnCutSession, OnCutWill, Settings};
use crate::cut::{Cut, CutReason};
use crate::engine::Client;
use crate::gate::{self, Aliases, Gate};
use crate::metrics::Metrics;
use crate::serve::Ended;
use crate::stream::{Event, OUTPUT_HIGH_BYTES, Packets, Reading, Stream, StreamError};
use crate::topic::TopicName;
use crate::wire::acks::{Ack, write_disconnect};
use crate::wire::publish::Publish;
use crate::wire::subscribe::{Subscribe, Unsubscribe, write_suback, write_unsuback};
use crate::wire::{Broken, Code, Frame, Packet, Qos, Version, kind, properties, write};

/// SUBSCRIBE and UNSUBSCRIBE packets with refused filters that may wait for the broker's answer.
const PARTIAL_MAX: usize = 64;

pub(crate) struct Relay<'a, S, U> {
    client: Packets<S>,
    upstream: Packets<U>,
    gate: Gate,
    version: Version,
    /// Aliases that the broker uses.
    aliases: Aliases,
    assigned_client_id: Option<String>,
    cut: Cut,
    settings: &'a Settings,
    metrics: &'a Metrics,
    /// Packet id -> for each filter its refusal, or none when the broker answers it.
    partial: HashMap<u16, Vec<Option<Code>>>,
    is_connected: bool,
    /// When the broker must have answered CONNECT.
    answer_by: Option<Instant>,
    resumes_at: Option<Instant>,
}

/// Why it is over, and what each side is told.
enum Over {
    /// The broker's connection is gone, or it said goodbye.
    Broker,
    /// The client is gone without a goodbye: the broker fires its will.
    ClientGone,
    ClientLeft,
    Ours(Code),
    Cut(CutReason),
}

impl From<Broken> for Over {
    fn from(broken: Broken) -> Self {
        Self::Ours(broken.code)
    }
}

impl<'a, S: Stream, U: Stream> Relay<'a, S, U> {
    pub(crate) fn new(
        client: Client<S>,
        upstream: Packets<U>,
        settings: &'a Settings,
        metrics: &'a Metrics,
    ) -> Self {
        let connect = client.connect;
        Self {
            client: client.packets,
            upstream,
            gate: client.gate,
            version: connect.version,
            aliases: Aliases::new(connect.topic_alias_maximum),
            assigned_client_id: client.is_assigned.then_some(connect.client_id),
            cut: client.cut,
            settings,
            metrics,
            partial: HashMap::new(),
            is_connected: false,
            answer_by: Some(Instant::now() + Duration::from_secs(settings.quotas.connect_timeout_s.into())),
            resumes_at: None,
        }
    }

    pub(crate) async fn run(mut self, mut draining: watch::Receiver<bool>) -> Ended {
        let over = loop {
            // Each side is read only while the other takes what it gets.
            let from_client = self.reading(self.is_connected && self.resumes_at.is_none(), &self.upstream);
            let from_broker = self.reading(true, &self.client);
            let deadline =
                [self.client.stalled_at(), self.upstream.stalled_at(), self.answer_by, self.resumes_at];
            let handled = tokio::select! {
                biased;
                reason = self.cut.wait() => break Over::Cut(reason),
                event = self.client.event(from_client) => self.handle_client(event),
                event = self.upstream.event(from_broker) => self.handle_broker(event),
                _ = draining.wait_for(|draining| *draining) => break Over::Ours(Code::SERVER_SHUTTING_DOWN),
                () = sleep_until(deadline.into_iter().flatten().min()) => self.handle_deadline(),
            };
            if let Err(over) = handled {
                break over;
            }
        };
        self.end(over).await
    }

    fn reading<O>(&self, is_wanted: bool, other: &Packets<O>) -> Reading
    where
        O: Stream,
    {
        let has_room = other.waiting_bytes() < OUTPUT_HIGH_BYTES;
        if is_wanted && has_room { Reading::Wanted } else { Reading::Paused }
    }

    fn handle_deadline(&mut self) -> Result<(), Over> {
        let now = Instant::now();
        if self.resumes_at.is_some_and(|at| at <= now) {
            self.resumes_at = None;
        }
        if self.client.stalled_at().is_some_and(|at| at <= now) {
            return Err(Over::ClientGone);
        }
        if [self.upstream.stalled_at(), self.answer_by].into_iter().flatten().any(|at| at <= now) {
            return Err(Over::Broker);
        }
        Ok(())
    }

    fn handle_client(&mut self, event: Result<Event, StreamError>) -> Result<(), Over> {
        let frame = match event {
            Ok(Event::Frame(frame)) => frame.unmarked(self.version),
            Ok(Event::Drained) => return Ok(()),
            Ok(Event::Closed) | Err(StreamError::Io(_)) => return Err(Over::ClientGone),
            Err(StreamError::Broken(broken)) => return Err(broken.into()),
        };
        match Packet::parse(&frame, self.version)? {
            Packet::Publish(mut publish) => self.publish(&frame, &mut publish)?,
            Packet::Subscribe(subscribe) => self.subscribe(&frame, subscribe)?,
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&frame, unsubscribe)?,
            Packet::Disconnect(_) => {
                forward(&frame, self.upstream.output());
                return Err(Over::ClientLeft);
            }
            Packet::Ack(_) | Packet::Ping => forward(&frame, self.upstream.output()),
        }
        Ok(())
    }

    fn publish(&mut self, frame: &Frame, publish: &mut Publish) -> Result<(), Over> {
        self.resumes_at = self.gate.pace(Instant::now())?;
        let Err(code) = self.gate.check_publish(publish)? else {
            self.metrics.published.up();
            forward(frame, self.upstream.output());
            return Ok(());
        };
        self.metrics.publish_refused.up();
        if !gate::may_go_on(self.version, code, &publish.topic) {
            return Err(Over::Ours(code));
        }
        let kind = match publish.qos {
            Qos::Zero => return Ok(()),
            Qos::One => kind::PUBACK,
            Qos::Two => kind::PUBREC,
        };
        Ack { kind, packet_id: publish.packet_id, code }.write(self.client.output(), self.version);
        Ok(())
    }

    fn subscribe(&mut self, frame: &Frame, subscribe: Subscribe) -> Result<(), Over> {
        let (packet_id, subscription_id) = (subscribe.packet_id, subscribe.subscription_id);
        let checked = self.gate.check_subscribe(subscribe)?;
        let refusals: Vec<_> = checked.iter().map(|filter| filter.as_ref().err().copied()).collect();
        if !self.note(packet_id, &refusals)? {
            forward(frame, self.upstream.output());
            return Ok(());
        }
        let filters: Vec<_> =
            checked.into_iter().flatten().map(|(filter, options)| (filter.to_string(), options)).collect();
        if filters.is_empty() {
            self.partial.remove(&packet_id);
            let codes: Vec<_> = refusals.into_iter().flatten().collect();
            write_suback(self.client.output(), self.version, packet_id, &codes);
        } else {
            let permitted = Subscribe { packet_id, subscription_id, filters };
            permitted.write(self.upstream.output(), self.version);
        }
        Ok(())
    }

    fn unsubscribe(&mut self, frame: &Frame, unsubscribe: Unsubscribe) -> Result<(), Over> {
        let packet_id = unsubscribe.packet_id;
        let checked = self.gate.check_unsubscribe(&unsubscribe)?;
        let refusals: Vec<_> = checked.iter().map(|filter| filter.as_ref().err().copied()).collect();
        if !self.note(packet_id, &refusals)? {
            forward(frame, self.upstream.output());
            return Ok(());
        }
        let filters: Vec<_> = checked.into_iter().flatten().map(|filter| filter.to_string()).collect();
        if filters.is_empty() {
            self.partial.remove(&packet_id);
            let codes: Vec<_> = refusals.into_iter().flatten().collect();
            write_unsuback(self.client.output(), self.version, packet_id, &codes);
        } else {
            Unsubscribe { packet_id, filters }.write(self.upstream.output(), self.version);
        }
        Ok(())
    }

    /// Notes the refusals of a packet until the broker answers the rest. Returns whether there are any.
    fn note(&mut self, packet_id: u16, refusals: &[Option<Code>]) -> Result<bool, Broken> {
        if refusals.iter().all(Option::is_none) {
            return Ok(false);
        }
        let refused = refusals.iter().flatten().count();
        self.metrics.subscribe_refused.add(u64::try_from(refused).unwrap_or_default());
        if self.partial.len() >= PARTIAL_MAX {
            return Err(Broken::new(Code::QUOTA_EXCEEDED, "too many packets without an answer"));
        }
        self.partial.insert(packet_id, refusals.to_vec());
        Ok(true)
    }

    fn handle_broker(&mut self, event: Result<Event, StreamError>) -> Result<(), Over> {
        let frame = match event {
            Ok(Event::Frame(frame)) => frame,
            Ok(Event::Drained) => return Ok(()),
            Ok(Event::Closed) | Err(_) => return Err(Over::Broker),
        };
        let handled = if self.is_connected { self.deliver(&frame) } else { self.connack(&frame) };
        handled.map_err(|broken| {
            tracing::warn!(%broken, "the other broker broke the protocol");
            Over::Broker
        })?;
        if frame.kind() == kind::DISCONNECT || !self.is_connected {
            return Err(Over::Broker);
        }
        Ok(())
    }

    fn connack(&mut self, frame: &Frame) -> Result<(), Broken> {
        let bounds = Bounds {
            packet_bytes: self.settings.quotas.packet_bytes,
            topic_aliases: self.settings.quotas.topic_aliases,
            max_qos: self.settings.quotas.max_qos,
            has_no_retained: self.settings.quotas.retained == 0,
            assigned_client_id: self.assigned_client_id.as_deref(),
        };
        self.is_connected = rewrite::connack(frame, self.version, &bounds, self.client.output())?;
        self.answer_by = None;
        Ok(())
    }

    fn deliver(&mut self, frame: &Frame) -> Result<(), Broken> {
        match frame.kind() {
            kind::PUBLISH => self.deliver_publish(frame),
            kind::SUBACK | kind::UNSUBACK => self.deliver_ack(frame),
            _ => {
                forward(frame, self.client.output());
                Ok(())
            }
        }
    }

    fn deliver_publish(&mut self, frame: &Frame) -> Result<(), Broken> {
        let mut publish = Publish::parse_from_server(frame, self.version)?;
        if let Some(alias) = publish.alias {
            self.aliases.resolve(alias, &mut publish.topic)?;
        }
        let topic =
            TopicName::parse(&publish.topic).map_err(|error| error.broken(Code::TOPIC_NAME_INVALID))?;
        if self.gate.rules.may_read(topic)
            && self.gate.may_deliver(topic.as_str(), publish.qos, publish.retain)
        {
            self.metrics.delivered.up();
            forward(frame, self.client.output());
            return Ok(());
        }
        self.metrics.deliver_refused.up();
        // The broker must not send it again.
        let kind = match publish.qos {
            Qos::Zero => return Ok(()),
            Qos::One => kind::PUBACK,
            Qos::Two => kind::PUBREC,
        };
        let ack = Ack { kind, packet_id: publish.packet_id, code: Code::NOT_AUTHORIZED };
        ack.write(self.upstream.output(), self.version);
        Ok(())
    }

    /// Puts the gate's refusals between the broker's codes.
    fn deliver_ack(&mut self, frame: &Frame) -> Result<(), Broken> {
        let (packet_id, codes) = rewrite::ack_codes(frame, self.version)?;
        let Some(refusals) = self.partial.remove(&packet_id) else {
            forward(frame, self.client.output());
            return Ok(());
        };
        let mut theirs = codes.iter().map(|code| Code(*code));
        let merged: Vec<_> = refusals
            .into_iter()
            .map(|refusal| refusal.or_else(|| theirs.next()).unwrap_or(Code::UNSPECIFIED))
            .collect();
        let output = self.client.output();
        match frame.kind() {
            kind::SUBACK => write_suback(output, self.version, packet_id, &merged),
            _ => write_unsuback(output, self.version, packet_id, &merged),
        }
        Ok(())
    }

    async fn end(mut self, over: Over) -> Ended {
        let (ended, goodbye) = match over {
            Over::Broker => (Ended::Upstream, None),
            Over::ClientGone => (Ended::Closed, None),
            Over::ClientLeft => (Ended::Disconnected, None),
            Over::Ours(code) => (Ended::Ours(code), Some(code)),
            Over::Cut(reason) => (Ended::Cut(reason), Some(Code::ADMINISTRATIVE_ACTION)),
        };
        match ended {
            Ended::Cut(_) => self.leave(self.settings.on_cut.will, self.settings.on_cut.session),
            Ended::Ours(Code::SERVER_SHUTTING_DOWN) => self.leave(OnCutWill::Drop, OnCutSession::Keep),
            _ => {}
        }
        if !self.is_connected && ended == Ended::Upstream && self.client.waiting_bytes() == 0 {
            crate::wire::connect::write_refused(self.client.output(), self.version, Code::SERVER_UNAVAILABLE);
        }
        if let Some(code) = goodbye {
            write_disconnect(self.client.output(), self.version, code);
        }
        if ended == Ended::Closed {
            // Without a goodbye, so that the broker fires the will.
            drop(self.upstream);
            self.client.finish().await;
        } else {
            tokio::join!(self.upstream.finish(), self.client.finish());
        }
        ended
    }

    /// Takes leave of the broker: with a DISCONNECT it drops the will, without one it fires it.
    fn leave(&mut self, will: OnCutWill, session: OnCutSession) {
        let version = self.version;
        let code = match will {
            OnCutWill::Drop => Code::SUCCESS,
            OnCutWill::Publish if version == Version::V5 => Code::DISCONNECT_WITH_WILL,
            OnCutWill::Publish => return,
        };
        write::packet(self.upstream.output(), kind::DISCONNECT << 4, |body| {
            if version == Version::V5 {
                body.push(code.0);
                if session == OnCutSession::Drop {
                    let mut properties = vec![properties::id::SESSION_EXPIRY];
                    write::u32(&mut properties, 0);
                    write::properties(body, &properties);
                }
            }
        });
    }
}

fn forward(frame: &Frame, out: &mut Vec<u8>) {
    out.reserve(frame.body.len().saturating_add(5));
    write::packet(out, frame.first, |body| body.extend_from_slice(&frame.body));
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => core::future::pending().await,
    }
}
