//! Names for the places of a gate: which rule, application and policy stands where.
//!
//! Read in the order in which the gate is made; a test holds the two together.

use std::collections::BTreeMap;

use muster_policy::gate::Action;
use muster_policy::identity::{AccountId, CaId, ZoneId};
use muster_policy::name::Hostname;
use muster_store::{Fault, Reader};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::access;
use crate::api::rulesets::rules_in_force;

/// A rule of a zone.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RuleLabel {
    /// Its place among the rules that are enabled, from 1.
    pub(crate) number: usize,
    pub(crate) id: Option<String>,
    pub(crate) expression: String,
    pub(crate) action: Action,
    pub(crate) description: String,
}

/// An application.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AppLabel {
    pub(crate) id: Option<CaId>,
    pub(crate) name: Option<String>,
    pub(crate) domain: String,
    #[serde(skip)]
    pub(crate) policies: Vec<PolicyLabel>,
}

/// A policy of an application.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct PolicyLabel {
    pub(crate) id: Option<CaId>,
    pub(crate) name: String,
}

impl PolicyLabel {
    /// Stands for one that is gone or can't be meant: it lets nobody in.
    pub(crate) fn closed() -> Self {
        Self { id: None, name: "a policy that can't be read".to_owned() }
    }
}

/// All of an account.
pub(super) struct Labels {
    apps: Vec<AppLabel>,
    rules: BTreeMap<ZoneId, Vec<RuleLabel>>,
}

impl Labels {
    pub(super) fn read(reader: &Reader, account: AccountId) -> Result<Self, Fault> {
        let rules = rules_in_force(reader, account)?.into_iter();
        Ok(Self { apps: access::app_labels(reader, account)?, rules: rules.collect() })
    }

    pub(super) fn app(&self, place: usize) -> Option<&AppLabel> {
        self.apps.get(place)
    }

    pub(super) fn rule(&self, zone: ZoneId, place: usize) -> Option<&RuleLabel> {
        self.rules.get(&zone)?.get(place)
    }
}

/// The zone of the rule that a hostname leads to: its own, or that of a wildcard.
pub(super) fn zone_of(reader: &Reader, account: AccountId, host: &str) -> Result<Option<ZoneId>, Fault> {
    let Ok(name) = host.parse::<Hostname>() else { return Ok(None) };
    let wildcard = name.as_str().split_once('.').map(|(_, parent)| format!("*.{parent}"));
    for pattern in [Some(name.to_string()), wildcard].into_iter().flatten() {
        let Ok(pattern) = pattern.parse() else { continue };
        if let Some(found) = reader.host(&pattern)?.filter(|found| found.rule.account == account) {
            return Ok(Some(found.rule.zone));
        }
    }
    Ok(None)
}
