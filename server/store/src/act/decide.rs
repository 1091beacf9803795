//! A person's decision on a request that waits.

use muster_policy::identity::RequestKey;

use crate::act::{By, Rejected, audit, requests};
use crate::keys;
use crate::record::{Action, Request, Subjects, WaitingRequest};
use crate::tables::Tables;
use crate::transaction::{Failed, Transaction};

/// What a person decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The device's next poll gets its certificate.
    Approve,
    /// The device's next poll is refused.
    Deny,
}

/// Approves or denies a request that waits.
#[derive(Clone, Debug)]
pub struct DecideRequest {
    /// The request.
    pub request: RequestKey,
    /// What is decided.
    pub decision: Decision,
    /// Who decides, and when.
    pub by: By,
}

impl Transaction for DecideRequest {
    const NAME: &'static str = "decide_request";
    type Output = WaitingRequest;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<WaitingRequest, Failed<Rejected>> {
        let Some(before @ Request::Waiting(_)) = tables.get::<Request>(&keys::request(self.request))? else {
            return Err(Failed::Refused(Rejected::RequestNotWaiting));
        };
        let (by, at) = (self.by.actor.clone(), self.by.at);
        let (after, action) = match self.decision {
            Decision::Approve => (Request::Approved { by, at }, Action::RequestApproved),
            Decision::Deny => (Request::Denied { by, at }, Action::RequestDenied),
        };
        requests::set(tables, self.request, Some(&before), &after)?;
        let Request::Waiting(waiting) = before else {
            return Err(Failed::Refused(Rejected::RequestNotWaiting));
        };
        let subjects = Subjects {
            account: Some(waiting.account),
            device: Some(waiting.device.clone()),
            profile: Some(waiting.profile.clone()),
            ..Subjects::default()
        };
        audit(tables, &self.by, action, subjects, Some(format!("request {}", self.request)))?;
        Ok(*waiting)
    }
}
