//! Where the Cloudflare v4 API has what is there too.

use std::sync::Arc;

use axum::handler::Handler;

use crate::Api;
use crate::api::{
    access, access_certificates, accounts, associations, client_certificates, managed_headers,
    mtls_certificates, origin_pulls, rulesets, zones,
};
use crate::openapi::{Operation, Routes, delete, get, patch, post, put};

/// What the Cloudflare v4 API has too.
pub(super) fn routes() -> Routes {
    Routes::default()
        .at("/user", [get("Get the holder of the token", accounts::user).answers::<accounts::UserView>()])
        .at("/user/tokens/verify", [verify("Verify the token", accounts::verify_token)])
        .at(
            "/memberships",
            [get("List the accounts of the token", accounts::memberships)
                .query(&["status", "account.name", "name"])
                .lists::<accounts::MembershipView<'static>>()],
        )
        .at(
            "/accounts",
            [get("List accounts", accounts::list).query(&["name"]).lists::<accounts::AccountView<'static>>()],
        )
        .at(
            "/accounts/{account_id}",
            [get("Get an account", accounts::get).answers::<accounts::AccountView<'static>>()],
        )
        .at(
            "/accounts/{account_id}/tokens/verify",
            [verify("Verify the token", accounts::verify_account_token)],
        )
        .at(
            "/accounts/{account_id}/mtls_certificates",
            [
                get("List uploaded CA and leaf certificates", mtls_certificates::list)
                    .query(&["ca", "name", "type"])
                    .lists::<mtls_certificates::CertificateView>(),
                post("Upload a CA or leaf certificate", mtls_certificates::upload)
                    .takes::<mtls_certificates::Wanted>()
                    .answers::<mtls_certificates::CertificateView>(),
            ],
        )
        .at(
            "/accounts/{account_id}/mtls_certificates/{id}",
            [
                get("Get an uploaded certificate", mtls_certificates::get)
                    .answers::<mtls_certificates::CertificateView>(),
                delete("Delete an uploaded certificate", mtls_certificates::remove)
                    .answers::<mtls_certificates::CertificateView>(),
            ],
        )
        .at(
            "/accounts/{account_id}/mtls_certificates/{id}/associations",
            [get("List what uses an uploaded certificate", mtls_certificates::associations)
                .lists::<mtls_certificates::UseView>()],
        )
        .merge(zones())
        .nest("/accounts/{account_id}/access", access())
        .nest("/zones/{zone_id}/access", access())
}

fn verify<H, T>(summary: &'static str, handler: H) -> Operation
where
    H: Handler<T, Arc<Api>>,
    T: 'static,
{
    get(summary, handler).answers::<accounts::TokenView>()
}

/// Zones, and what lies in them.
fn zones() -> Routes {
    Routes::default()
        .at(
            "/zones",
            [
                get("List zones", zones::list)
                    .query(&["name", "account.id", "account.name", "status", "match", "order", "direction"])
                    .lists::<zones::ZoneView>(),
                post("Add a zone", zones::create).takes::<zones::NewZone>().answers::<zones::ZoneView>(),
            ],
        )
        .at(
            "/zones/{zone_id}",
            [
                get("Get a zone", zones::get).answers::<zones::ZoneView>(),
                patch("Edit a zone", zones::edit).takes::<zones::Edit>().answers::<zones::ZoneView>(),
                delete("Delete a zone", zones::remove).answers::<zones::Removed>(),
            ],
        )
        .at(
            "/zones/{zone_id}/client_certificates",
            [
                get("List client certificates", client_certificates::list)
                    .query(&["status", "limit", "offset"])
                    .lists::<client_certificates::ClientCertificateView>(),
                post("Sign a certificate request", client_certificates::create)
                    .takes::<client_certificates::Wanted>()
                    .answers::<client_certificates::ClientCertificateView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/client_certificates/{id}",
            [
                get("Get a client certificate", client_certificates::get)
                    .answers::<client_certificates::ClientCertificateView>(),
                patch("Reactivate a client certificate", client_certificates::edit)
                    .takes::<client_certificates::Edit>()
                    .answers::<client_certificates::ClientCertificateView>(),
                delete("Revoke a client certificate", client_certificates::revoke)
                    .answers::<client_certificates::ClientCertificateView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/certificate_authorities/hostname_associations",
            [
                get("List the hostnames associated with a CA", associations::get)
                    .query(&["mtls_certificate_id"])
                    .answers::<associations::AssociationView>(),
                put("Replace the hostnames associated with a CA", associations::set)
                    .takes::<associations::Wanted>()
                    .answers::<associations::AssociationView>(),
            ],
        )
        .nest("/zones/{zone_id}/origin_tls_client_auth", origin_pulls())
        .at(
            "/zones/{zone_id}/rulesets",
            [
                get("List rulesets", rulesets::list).lists::<rulesets::RulesetView>(),
                post("Create the ruleset", rulesets::create)
                    .takes::<rulesets::NewRuleset>()
                    .answers::<rulesets::RulesetView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/rulesets/phases/http_request_firewall_custom/entrypoint",
            [
                get("Get the rules that apply to requests", rulesets::get).answers::<rulesets::RulesetView>(),
                put("Replace the rules that apply to requests", rulesets::set)
                    .takes::<rulesets::Wanted>()
                    .answers::<rulesets::RulesetView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/rulesets/{id}",
            [
                get("Get a ruleset", rulesets::get_named).answers::<rulesets::RulesetView>(),
                put("Replace the rules of a ruleset", rulesets::set_named)
                    .takes::<rulesets::Wanted>()
                    .answers::<rulesets::RulesetView>(),
                delete("Delete a ruleset", rulesets::remove).answers::<rulesets::RulesetView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/rulesets/{id}/rules",
            [post("Add a rule", rulesets::rules::add)
                .takes::<rulesets::rules::Added>()
                .answers::<rulesets::RulesetView>()],
        )
        .at(
            "/zones/{zone_id}/rulesets/{id}/rules/{rule_id}",
            [
                patch("Edit a rule", rulesets::rules::change)
                    .takes::<rulesets::rules::Changed>()
                    .answers::<rulesets::RulesetView>(),
                delete("Delete a rule", rulesets::rules::remove).answers::<rulesets::RulesetView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/managed_headers",
            [
                get("Get the managed headers sent to origins", managed_headers::get)
                    .answers::<managed_headers::View>(),
                patch("Turn managed headers on or off", managed_headers::edit)
                    .takes::<managed_headers::Wanted>()
                    .answers::<managed_headers::View>(),
                delete("Reset managed headers to their defaults", managed_headers::remove)
                    .answers::<managed_headers::View>(),
            ],
        )
}

/// What the origins of a zone are shown.
fn origin_pulls() -> Routes {
    use origin_pulls::hostnames;
    Routes::default()
        .merge(origin_certificates::<origin_pulls::OfZone>(""))
        .merge(origin_certificates::<origin_pulls::OfHostnames>("/hostnames/certificates"))
        .at(
            "/settings",
            [
                get("Get whether the zone's origins are sent a client certificate", origin_pulls::settings)
                    .answers::<origin_pulls::SettingsView>(),
                put(
                    "Set whether the zone's origins are sent a client certificate",
                    origin_pulls::set_settings,
                )
                .takes::<origin_pulls::SettingsWanted>()
                .answers::<origin_pulls::SettingsView>(),
            ],
        )
        .at(
            "/hostnames",
            [
                get("List hostnames with their own client certificate for origins", hostnames::list)
                    .lists::<hostnames::HostnameView>(),
                put("Set the client certificates of hostnames for their origins", hostnames::set)
                    .takes::<hostnames::Wanted>()
                    .answers_list::<hostnames::HostnameView>(),
            ],
        )
        .at(
            "/hostnames/{id}",
            [get("Get the client certificate of a hostname for its origins", hostnames::get)
                .answers::<hostnames::HostnameView>()],
        )
}

/// Certificates for origins, of one level.
fn origin_certificates<L: origin_pulls::Level>(prefix: &str) -> Routes {
    let all = if prefix.is_empty() { "/" } else { prefix };
    Routes::default()
        .at(
            all,
            [
                get("List client certificates for origins", origin_pulls::list::<L>)
                    .lists::<origin_pulls::CertificateView>(),
                post("Upload a client certificate for origins", origin_pulls::upload::<L>)
                    .takes::<origin_pulls::Wanted>()
                    .answers::<origin_pulls::CertificateView>(),
            ],
        )
        .at(
            &format!("{prefix}/{{id}}"),
            [
                get("Get a client certificate for origins", origin_pulls::get::<L>)
                    .answers::<origin_pulls::CertificateView>(),
                delete("Delete a client certificate for origins", origin_pulls::remove::<L>)
                    .answers::<origin_pulls::CertificateView>(),
            ],
        )
}

/// Zero Trust Access, of an account or of a zone.
fn access() -> Routes {
    use access::app_policies as policies;
    use access_certificates as certificates;
    Routes::default()
        .nest("/apps", documents::<access::App>())
        .at(
            "/apps/{id}/policies",
            [
                get("List the policies of an Access application", policies::list)
                    .lists::<access::views::LinkView>(),
                post("Add a policy to an Access application", policies::add)
                    .takes::<policies::Own>()
                    .answers::<access::views::LinkView>()
                    .created(),
            ],
        )
        .at(
            "/apps/{id}/policies/{policy_id}",
            [
                get("Get a policy of an Access application", policies::get)
                    .answers::<access::views::LinkView>(),
                put("Replace a policy of an Access application", policies::update)
                    .takes::<policies::Own>()
                    .answers::<access::views::LinkView>(),
                delete("Delete a policy of an Access application", policies::remove)
                    .answers::<access::Removed>(),
            ],
        )
        .nest("/groups", documents::<access::Group>())
        .nest("/policies", documents::<access::Policy>())
        .at(
            "/certificates",
            [
                get("List Access certificates", certificates::list)
                    .lists::<certificates::AccessCertificateView>(),
                post("Upload an Access certificate", certificates::create)
                    .takes::<certificates::Wanted>()
                    .answers::<certificates::AccessCertificateView>()
                    .created(),
            ],
        )
        .at(
            "/certificates/settings",
            [
                get("Get what hostnames forward of client certificates", certificates::settings)
                    .lists::<certificates::Setting>(),
                put("Set what hostnames forward of client certificates", certificates::set_settings)
                    .takes::<certificates::Settings>()
                    .answers_list::<certificates::Setting>(),
            ],
        )
        .at(
            "/certificates/{id}",
            [
                get("Get an Access certificate", certificates::get)
                    .answers::<certificates::AccessCertificateView>(),
                put("Edit an Access certificate", certificates::update)
                    .takes::<certificates::Update>()
                    .answers::<certificates::AccessCertificateView>(),
                delete("Delete an Access certificate", certificates::remove)
                    .answers::<certificates::Removed>(),
            ],
        )
}

/// The routes of one kind of Access document.
fn documents<T: access::Written>() -> Routes {
    let (one, many) = T::NOUNS;
    Routes::default()
        .at(
            "/",
            [
                get(format!("List {many}"), access::list::<T>)
                    .query(access::Sought::QUESTIONS)
                    .lists::<T::View>(),
                post(format!("Create {one}"), access::create::<T>)
                    .takes::<T>()
                    .answers::<T::View>()
                    .created(),
            ],
        )
        .at(
            "/{id}",
            [
                get(format!("Get {one}"), access::get::<T>).answers::<T::View>(),
                put(format!("Replace {one}"), access::update::<T>).takes::<T>().answers::<T::View>(),
                delete(format!("Delete {one}"), access::remove::<T>).answers::<access::Removed>(),
            ],
        )
}
