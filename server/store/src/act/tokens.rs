//! Enrollment tokens and admin tokens.

use muster_policy::identity::{AccountId, TokenId};

use crate::act::{By, Rejected, log};
use crate::keys;
use crate::record::{Action, AdminToken, ChangeKind, Subjects, Token};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Transaction};

/// Stores a new token, unused and not revoked whatever its record says.
#[derive(Clone, Debug)]
pub struct CreateToken {
    /// The token.
    pub token: Token,
    /// Who makes it.
    pub by: By,
}

impl Transaction for CreateToken {
    const NAME: &'static str = "create_token";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        let Token { id, account, hash, expires_at, .. } = self.token;
        let key = keys::token(account, id);
        if !tables.contains(TableName::Accounts, &keys::account(account))? {
            return Err(Failed::Refused(Rejected::AccountUnknown));
        }
        if tables.contains(TableName::Tokens, &key)?
            || tables.contains(TableName::TokenHashes, &keys::secret(hash))?
        {
            return Err(Failed::Refused(Rejected::Exists("the token")));
        }
        let token =
            Token { uses_taken: 0, waiting: 0, revoked_at: None, last_used_at: None, ..self.token.clone() };
        tables.put(&key, &token)?;
        tables.put_raw(TableName::TokenHashes, &keys::secret(hash), &key)?;
        tables.put_raw(TableName::TokenExpiry, &keys::token_expiry(expires_at, account, id), &[])?;
        tables.count(account, |counters| counters.tokens = counters.tokens.saturating_add(1))?;
        log(tables, &self.by, Action::TokenCreated, subjects(&token), ChangeKind::TokenSet(id))?;
        Ok(())
    }
}

/// Revokes a token; revoking it again changes nothing.
#[derive(Clone, Debug)]
pub struct RevokeToken {
    /// The owner.
    pub account: AccountId,
    /// The token.
    pub token: TokenId,
    /// Who revokes it.
    pub by: By,
}

impl Transaction for RevokeToken {
    const NAME: &'static str = "revoke_token";
    type Output = Token;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Token, Failed<Rejected>> {
        let key = keys::token(self.account, self.token);
        let Some(mut token) = tables.get::<Token>(&key)? else {
            return Err(Failed::Refused(Rejected::TokenUnknown));
        };
        if token.revoked_at.is_some() {
            return Ok(token);
        }
        token.revoked_at = Some(self.by.at);
        tables.put(&key, &token)?;
        log(tables, &self.by, Action::TokenRevoked, subjects(&token), ChangeKind::TokenSet(token.id))?;
        Ok(token)
    }
}

fn subjects(token: &Token) -> Subjects {
    Subjects {
        account: Some(token.account),
        token: Some(token.id),
        device: token.device.clone(),
        profile: token.profile.clone(),
        ..Subjects::default()
    }
}

/// Stores a new admin token.
#[derive(Clone, Debug)]
pub struct CreateAdminToken {
    /// The token.
    pub token: AdminToken,
    /// Who makes it.
    pub by: By,
}

impl Transaction for CreateAdminToken {
    const NAME: &'static str = "create_admin_token";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        let AdminToken { id, hash, .. } = self.token;
        let key = keys::admin_token(id);
        if tables.contains(TableName::AdminTokens, &key)?
            || tables.contains(TableName::AdminTokenHashes, &keys::secret(hash))?
        {
            return Err(Failed::Refused(Rejected::Exists("the admin token")));
        }
        tables.put(&key, &AdminToken { revoked_at: None, ..self.token.clone() })?;
        tables.put_raw(TableName::AdminTokenHashes, &keys::secret(hash), &key)?;
        let subjects = Subjects { token: Some(id), ..Subjects::default() };
        Ok(log(tables, &self.by, Action::AdminTokenCreated, subjects, ChangeKind::AdminTokenSet(id))?)
    }
}

/// Revokes an admin token; revoking it again changes nothing.
#[derive(Clone, Debug)]
pub struct RevokeAdminToken {
    /// The token.
    pub token: TokenId,
    /// Who revokes it.
    pub by: By,
}

impl Transaction for RevokeAdminToken {
    const NAME: &'static str = "revoke_admin_token";
    type Output = AdminToken;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<AdminToken, Failed<Rejected>> {
        let key = keys::admin_token(self.token);
        let Some(mut token) = tables.get::<AdminToken>(&key)? else {
            return Err(Failed::Refused(Rejected::TokenUnknown));
        };
        if token.revoked_at.is_some() {
            return Ok(token);
        }
        token.revoked_at = Some(self.by.at);
        tables.put(&key, &token)?;
        let subjects = Subjects { token: Some(token.id), ..Subjects::default() };
        log(tables, &self.by, Action::AdminTokenRevoked, subjects, ChangeKind::AdminTokenSet(token.id))?;
        Ok(token)
    }
}
