//! Strangers' MQTT clients against our broker: mosquitto's in C, Paho in Python.

use muster_broker::{AnonymousConfig, BrokerConfig};
use muster_tests::MqttBroker;

use super::command;

fn open() -> BrokerConfig {
    let all = vec!["#".to_owned()];
    BrokerConfig {
        anonymous: Some(AnonymousConfig { publish: all.clone(), subscribe: all, deny: Vec::new() }),
        ..BrokerConfig::default()
    }
}

#[test]
fn mosquitto_clients_publish_and_subscribe_in_both_versions_and_all_qualities() {
    let broker = MqttBroker::start(open());
    let port = broker.listen(None).port();
    for version in ["mqttv311", "mqttv5"] {
        for quality in 0..3 {
            let line = format!(
                "mosquitto_pub -V {version} -p {port} -q {quality} -r -t kept/{version}/{quality} -m first
                 mosquitto_sub -V {version} -p {port} -q 2 -t 'kept/{version}/{quality}' -W 10 -C 2 -F '%q %r %p' &
                 sleep 0.5
                 mosquitto_pub -V {version} -p {port} -q {quality} -t kept/{version}/{quality} -m second
                 wait $!"
            );
            let expected = format!("{quality} 1 first\n{quality} 0 second\n");
            assert_eq!(command("bash", &["-ec", &line]), expected, "{version}");
        }
    }
}

#[test]
fn a_device_is_held_to_its_own_topics() {
    let broker = MqttBroker::start(BrokerConfig::default());
    let port = broker.listen(Some("meter")).port();
    let line = format!(
        "mosquitto_sub -V mqttv5 -p {port} -i meter/watch -t 'devices/meter/#' -W 10 -C 1 &
         sleep 0.5
         mosquitto_pub -V mqttv5 -p {port} -q 1 -i meter -t devices/meter/state -m good
         wait $!
         mosquitto_pub -V mqttv5 -p {port} -q 1 -i meter -t devices/other/state -m bad 2>&1 || true
         mosquitto_pub -V mqttv5 -p {port} -i other -t devices/meter/state -m bad 2>&1 || true
         mosquitto_sub -V mqttv5 -p {port} -i meter -t '#' -W 1 2>&1 || true"
    );
    let text = command("bash", &["-ec", &line]);
    assert!(text.starts_with("good\n") && text.contains("Not authorized"), "{text}");
    assert!(text.contains("Client Identifier not valid") && text.contains("denied"), "{text}");
    assert_eq!(broker.metrics().publish_refused, 1);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "tests/check.sh names the interpreter that it prepared")]
fn paho_in_python_finds_what_it_expects() {
    let broker = MqttBroker::start(open());
    let port = broker.listen(None).port();
    let python = std::env::var("MUSTER_TEST_PYTHON").expect("MUSTER_TEST_PYTHON names an interpreter");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/mqtt_paho.py");
    let text = command(&python, &[script, &port.to_string()]);
    assert!(text.ends_with("all done\n"), "{text}");
}
