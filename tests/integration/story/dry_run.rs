//! `--dry-run` of each changing verb: it says what the change then does, makes the same refusals, and leaves no trace.

use serde_json::{Value, json};

use super::export::Holder;
use crate::support::appliance::Appliance;
use crate::support::nbd::Client;
use crate::support::simulator::{APPLIANCE, WORKER};
use crate::support::wording::{message, names};

/// The commands that change something, as often as each has come to CloudStack.
fn changes(appliance: &Appliance) -> Vec<(String, u64)> {
    let state = appliance.cloud.state();
    let calls = state["journal"]["calls"].as_object().unwrap().clone();
    let looks = |command: &str| ["list", "query", "get"].iter().any(|verb| command.starts_with(verb));
    calls.into_iter().filter(|(command, _)| !looks(command)).map(|(c, n)| (c, n.as_u64().unwrap())).collect()
}

/// All that a dry run must leave as it is.
fn traces(appliance: &Appliance) -> Value {
    let (ops, mut exports) = (appliance.ok(&["ops"]), appliance.ok(&["exports"]));
    for export in exports["exports"].as_array_mut().unwrap() {
        // How busy it is now is not what stands.
        export.as_object_mut().unwrap().remove("traffic");
    }
    json!([changes(appliance), appliance.cloud.state()["volumes"], ops["operations"], exports["exports"]])
}

/// Runs a line with `--dry-run`, which leaves no trace; gives its plan.
#[track_caller]
fn plan(appliance: &Appliance, line: &[&str]) -> Vec<String> {
    let before = traces(appliance);
    let told = appliance.ok(&[line, &["--dry-run"]].concat());
    assert_eq!(traces(appliance), before, "{line:?}: {told}");
    assert_eq!((&told["changed"], &told["operation"]), (&json!(false), &json!(null)), "{told}");
    serde_json::from_value(told["plan"].clone()).unwrap_or_else(|_| panic!("no plan: {told}"))
}

/// The same refusal with and without `--dry-run`.
#[track_caller]
fn refused_alike(appliance: &Appliance, line: &[&str], code: i32, kind: &str) {
    let before = changes(appliance);
    let dry = appliance.json(&[line, &["--dry-run"]].concat()).failure(code, kind);
    let real = appliance.json(line).failure(code, kind);
    assert_eq!(dry["kind"], real["kind"]);
    // Ages in it may differ.
    assert_eq!(message(&dry).split(", last request").next(), message(&real).split(", last request").next());
    assert_eq!(changes(appliance), before, "{line:?}");
}

/// What is planned is then sent, and nothing else; and then there is nothing to do.
#[track_caller]
fn planned_and_done(appliance: &Appliance, line: &[&str], commands: &[&str]) -> Vec<String> {
    let planned = plan(appliance, line);
    let asked: Vec<&str> = planned.iter().filter_map(|step| step.strip_prefix("ask CloudStack: ")).collect();
    let named: Vec<&str> = asked.iter().map(|asked| asked.split([' ', ',']).next().unwrap()).collect();
    assert_eq!(named, commands, "{planned:?}");
    let before = changes(appliance);
    let done = appliance.ok(line);
    assert_eq!(done["changed"], true);
    assert!(done.get("plan").is_none(), "{done}");
    let count =
        |calls: &[(String, u64)], command: &str| calls.iter().find(|(c, _)| c == command).map_or(0, |(_, n)| *n);
    let after = changes(appliance);
    for (command, times) in &after {
        let sent = times - count(&before, command);
        assert_eq!(sent, u64::from(commands.contains(&command.as_str())), "{line:?}: {command}");
    }
    for (command, asked) in commands.iter().zip(asked) {
        sent_as_planned(appliance, command, asked);
    }
    planned
}

/// Each parameter of the last such request stands in the plan, beside those that every request has.
#[track_caller]
fn sent_as_planned(appliance: &Appliance, command: &str, planned: &str) {
    let requests = appliance.cloud.state()["journal"]["requests"].clone();
    let sent = requests.as_array().unwrap().iter().rev().find(|request| request["command"] == command).unwrap();
    for (name, value) in sent["parameters"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        let found = |value: &str| planned.contains(&format!(" {name}={value}"));
        let is_of_all = ["response", "signatureversion", "expires"].contains(&name.as_str());
        let told_as = [value, &format!("\"{value}\""), "(chosen then)", "\"(the new volume's)\""];
        assert!(is_of_all || told_as.iter().any(|told| found(told)), "{name}={value} of {command}: {planned}");
    }
}

#[test]
fn what_is_planned_is_what_is_done() {
    let appliance = Appliance::start();
    let created = planned_and_done(&appliance, &["create", "my disk", "--size", "1G"], &["createVolume"]);
    names(&created[0], &["name=\"my disk\"", "size=1", "zoneid=", "diskofferingid=", "customjobid="]);
    let id = appliance.truth("my disk").unwrap()["id"].as_str().unwrap().to_owned();

    let attached = planned_and_done(&appliance, &["attach", &id], &["attachVolume"]);
    names(&attached[0], &[&format!("id={id}"), &format!("virtualmachineid={APPLIANCE}")]);
    names(&attached[1], &[&id.replace('-', "")[..20]]);

    let exported = planned_and_done(&appliance, &["export", &id, "--name", "disk", "--read-only"], &[]);
    assert_eq!(exported, ["export it over NBD as disk, read-only"]);
    let withdrawn = planned_and_done(&appliance, &["unexport", "disk"], &[]);
    assert_eq!(withdrawn, ["end the export disk"]);

    planned_and_done(&appliance, &["export", &id, "--name", "disk"], &[]);
    let detached = planned_and_done(&appliance, &["detach", &id], &["detachVolume"]);
    assert_eq!(detached.len(), 4, "{detached:?}");
    names(&detached[0], &["end the export disk"]);
    names(&detached[1], &["flush", "virtio-"]);

    let deleted = planned_and_done(&appliance, &["delete", &id, "--yes"], &["destroyVolume"]);
    names(&deleted[0], &["expunge=false"]);
    planned_and_done(&appliance, &["recover", &id], &["recoverVolume"]);
    planned_and_done(&appliance, &["delete", &id, "--yes", "--expunge"], &["destroyVolume"]);

    let all = ["create", "data2", "--size", "1G", "--attach", "--export"];
    let steps = planned_and_done(&appliance, &all, &["createVolume", "attachVolume"]);
    assert_eq!(steps.len(), 4, "{steps:?}");
    planned_and_done(&appliance, &["create", "never", "--size", "1G"], &["createVolume"]);
    planned_and_done(&appliance, &["delete", "never", "--yes"], &["deleteVolume"]);
    let elsewhere = ["create", "data3", "--size", "1G"];
    appliance.ok(&elsewhere);
    planned_and_done(&appliance, &["attach", "data3", "--vm", "worker"], &["attachVolume"]);
    planned_and_done(&appliance, &["detach", "data3", "--from", "worker", "--yes"], &["detachVolume"]);
    let root = appliance.truth("ROOT-old").unwrap()["id"].as_str().unwrap().to_owned();
    appliance.cloud.job("detachVolume", &[("id", &root)]);
    let steps = planned_and_done(&appliance, &["attach", "data3", "--vm", "old", "--root"], &["attachVolume"]);
    names(&steps[0], &["deviceid=0"]);

    appliance.ok(&["create", "data4", "--size", "1G", "--export"]);
    let steps = planned_and_done(&appliance, &["move", "data4", "--to", "worker"], &["detachVolume", "attachVolume"]);
    names(&steps[0], &["end the export"]);
    appliance.ok(&["create", "data5", "--size", "1G"]);
    let swap = ["move", "data5", "--to", "old", "--root", "--swap-root", "--yes"];
    let steps = planned_and_done(&appliance, &swap, &["detachVolume", "attachVolume"]);
    let data3 = appliance.truth("data3").unwrap()["id"].as_str().unwrap().to_owned();
    names(&steps[0], &["detachVolume", &data3]);
    let destroy = ["reclaim", "data4", "--from", "worker", "--destroy-vm", "worker"];
    let commands = ["stopVirtualMachine", "detachVolume", "attachVolume", "destroyVirtualMachine"];
    let steps = planned_and_done(&appliance, &destroy, &commands);
    names(&steps.join("\n"), &["forced=false", "wait until this kernel has the disk", "export it over NBD"]);
}

#[test]
fn what_is_so_already_has_nothing_to_do() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--attach", "--export"]);
    for line in [
        &["create", "data1", "--size", "1G", "--exists-ok", "--export"][..],
        &["attach", "data1"],
        &["attach", "data1", "--export"],
        &["export", "data1"],
        &["recover", "data1"],
    ] {
        assert_eq!(plan(&appliance, line), Vec::<String>::new(), "{line:?}");
    }
    appliance.ok(&["detach", "data1", "--request-id", "r1"]);
    appliance.ok(&["detach", "data1"]);
    for line in [&["detach", "data1"][..], &["unexport", "data1"], &["detach", "data1", "--request-id", "r1"]] {
        assert_eq!(plan(&appliance, line), Vec::<String>::new(), "{line:?}");
    }
    let said = appliance.run(&["detach", "data1", "--dry-run"]).success();
    assert_eq!(said.stdout, "detach of data1: nothing to do\n");
}

#[test]
fn people_read_the_steps_and_that_nothing_was_changed() {
    let appliance = Appliance::start();
    let id = appliance.cloud.volume("data1");
    let said = appliance.run(&["attach", "data1", "--dry-run"]).success().stdout;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines[0], *lines.last().unwrap()), ("attach of data1 would, in this order:", "nothing was changed"));
    assert!(lines[1].starts_with(&format!("  1. ask CloudStack: attachVolume id={id} virtualmachineid={APPLIANCE}")));
    assert_eq!(appliance.run(&["-q", "attach", "data1", "--dry-run"]).success().stdout, "");
    let both = appliance.json(&["attach", "data1", "ROOT-old", "--dry-run"]).json()["results"].clone();
    assert!(both[0]["plan"].is_array() && both[1]["error"].is_object(), "{both}");
}

#[test]
fn refusals_are_those_of_the_real_request() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    appliance.ok(&["create", "data2", "--size", "1G"]);
    refused_alike(&appliance, &["attach", "missing"], 3, "not_found");
    refused_alike(&appliance, &["attach", "data1", "--vm", "worker"], 4, "conflict");
    refused_alike(&appliance, &["create", "data1", "--size", "1G"], 4, "conflict");
    refused_alike(&appliance, &["export", "data2"], 1, "device_missing");
    refused_alike(&appliance, &["delete", "data1", "--yes"], 4, "conflict");
    refused_alike(&appliance, &["detach", "ROOT-appliance"], 4, "conflict");

    appliance.ok(&["hold", "data1", "--note", "in use elsewhere"]);
    refused_alike(&appliance, &["detach", "data1"], 4, "conflict");
    appliance.ok(&["release", "data1"]);

    let holder = Holder::of(&appliance, "data1");
    refused_alike(&appliance, &["detach", "data1"], 4, "in_use");
    refused_alike(&appliance, &["export", "data1"], 4, "in_use");
    drop(holder);

    appliance.ok(&["export", "data1", "--name", "disk"]);
    refused_alike(&appliance, &["export", "data1", "--read-only"], 4, "conflict");
    let mut client = Client::enter(&appliance.path("nbd.sock"), "disk").unwrap();
    client.read(0, 512).unwrap();
    refused_alike(&appliance, &["detach", "data1"], 4, "in_use");
    refused_alike(&appliance, &["unexport", "disk"], 4, "in_use");
    names(&plan(&appliance, &["detach", "data1", "--force"])[0], &["close 1 clients"]);
    names(&plan(&appliance, &["unexport", "disk", "--drain", "10m"])[0], &["let 1 clients", "600s"]);
    client.read(0, 512).unwrap();
}

#[test]
fn a_busy_volume_is_busy_and_in_line_the_plan_says_behind_whom() {
    let appliance = Appliance::start();
    let id = appliance.cloud.volume("data1");
    appliance.cloud.settings(json!({"latency": {"attachVolume": {"min_ms": 600_000, "max_ms": 600_000}}}));
    let running = appliance.ok(&["attach", "data1", "--vm", WORKER, "--no-wait"])["operation"]["id"].clone();
    let error = appliance.json(&["attach", &id, "--vm", WORKER, "--dry-run"]).failure(4, "busy");
    names(message(&error), &[running.as_str().unwrap()]);
    let told = appliance.ok(&["attach", &id, "--vm", WORKER, "--queue", "--dry-run"]);
    names(told["plan"][0].as_str().unwrap(), &["in line", running.as_str().unwrap()]);
    assert_eq!(appliance.ok(&["ops"])["operations"].as_array().unwrap().len(), 1);
}
