//! The real `volctl` against a scripted peer: exit codes, documents, what goes to stdout and what to stderr.

mod peer;

use std::fs::OpenOptions;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use self::peer::*;

fn not_found() -> Value {
    error(-32003, "not_found", "no volume is called \"x\"", Value::Null)
}

#[test]
fn a_change_asks_to_wait_and_can_be_repeated() {
    let (sender, requests) = mpsc::channel();
    let peer = Peer::new(move |_, connection| {
        let request = connection.read();
        sender.send(request.clone()).unwrap();
        connection.answer(&request, Ok(changed(false)));
    });
    let line = "attach data1 --queue --timeout 1m30s --reason why --request-id mine --json";
    assert_eq!(peer.run(line).code, 0);
    let mut request = requests.recv().unwrap();
    assert_eq!(request["method"], "volume.attach");
    assert_eq!(
        request["params"].take(),
        json!({ "volume": "data1", "root": false, "export": false, "read_only": false, "wait": true, "queue": true,
                "timeout_seconds": 90, "request_id": "mine", "reason": "why", "token": 0 })
    );
    let ids = [(); 2].map(|()| {
        assert_eq!(peer.run("attach data1").code, 0);
        requests.recv().unwrap()["params"]["request_id"].as_str().unwrap().to_owned()
    });
    assert!(ids[0].len() == 36 && ids[0] != ids[1], "each its own: {ids:?}");
}

#[test]
fn a_document_is_what_came_over_the_socket() {
    let ended = Peer::answering(vec![Ok(changed(true))]).run("attach data1 --export --json");
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert!(ended.stdout.starts_with(r#"{"schema":1,"changed":true,"#), "{}", ended.stdout);
    let mut document = ended.json();
    document.as_object_mut().unwrap().remove("schema");
    assert_eq!(document, changed(true));
}

#[test]
fn people_read_what_is_true_now() {
    let peer = Peer::answering(vec![Ok(changed(true))]);
    let ended = peer.run("attach data1 --export");
    assert_eq!(ended.stdout, format!("data1 attached to this VM: {DEVICE}, exported at {URI}\n"));
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert_eq!(peer.run("export data1").stdout, format!("{URI}\nnbd://192.0.2.5:10809/x\n"));
    assert_eq!(peer.run("attach -q data1").stdout, format!("{URI}\n"));
    assert_eq!(Peer::answering(vec![Ok(changed(false))]).run("attach -q data1").stdout, format!("{DEVICE}\n"));
}

#[test]
fn notes_go_to_stderr_without_control_characters() {
    let mut answer = changed(false);
    answer["notes"] = json!(["offering \u{1b}[31mred was taken"]);
    let ended = Peer::answering(vec![Ok(answer)]).run("create data1 --size 1G");
    assert_eq!(ended.stderr, "note: offering \\u{1b}[31mred was taken\n");
}

#[test]
fn a_size_that_is_not_whole_is_said_twice() {
    let mut answer = changed(false);
    answer["volume"]["size_bytes"] = json!(11u64 << 30);
    let ended = Peer::answering(vec![Ok(answer)]).run("create data1 --size 10500M");
    assert!(ended.stdout.contains("11G") && ended.stdout.contains("10500M asked for"), "{}", ended.stdout);
}

#[test]
fn a_detach_tells_the_last_moments() {
    let mut answer = changed(false);
    answer["flushed_at"] = json!("2026-01-02T03:04:05Z");
    answer["bytes_written"] = json!(3u64 << 29);
    answer["last_client"] = json!("cut off");
    answer["device_gone_at"] = json!("2026-01-02T03:04:07Z");
    let ended = Peer::answering(vec![Ok(answer)]).run("detach data1");
    assert_eq!(
        ended.stdout,
        "data1 detached from this VM; flushed at 03:04:05 UTC, 1.5G written by clients, last client cut off, device \
         gone at 03:04:07 UTC\n"
    );
}

#[test]
fn errors_are_for_people_on_stderr_and_for_programs_on_stdout() {
    let peer = Peer::answering(vec![Err(not_found())]);
    let ended = peer.run("show x");
    assert_eq!((ended.code, ended.stdout.as_str()), (3, ""));
    assert_eq!(ended.stderr, "volctl: no volume is called \"x\"\nhint: do this\n");
    let ended = peer.run("show x --json");
    assert_eq!((ended.code, ended.stderr.as_str()), (3, ""));
    assert_eq!(
        ended.json(),
        json!({ "schema": 1, "operation": null, "error": { "kind": "not_found", "message": "no volume is called \"x\"",
                "hint": "do this", "retryable": false, "cloudstack": null } })
    );
}

#[test]
fn errors_of_the_standard_have_a_kind_too() {
    for (code, kind, exit) in [(-32602, "usage", 2), (-32601, "usage", 2), (-32603, "internal", 1)] {
        let peer = Peer::answering(vec![Err(json!({ "code": code, "message": "no" }))]);
        let ended = peer.run("ls --json");
        assert_eq!((ended.json()["error"]["kind"].as_str(), ended.code), (Some(kind), exit));
    }
}

#[test]
fn a_timeout_names_the_operation_that_goes_on() {
    let mut late = error(-32011, "timeout", "not attached within 1m", operation("running", "waiting for device"));
    late["data"]["hint"] = Value::Null;
    let peer = Peer::answering(vec![Err(late)]);
    let ended = peer.run("attach data1 --timeout 1m");
    assert_eq!(ended.code, 6);
    assert!(ended.stderr.contains(&format!("volctl ops wait {OPERATION}")), "{}", ended.stderr);
    assert_eq!(peer.run("attach data1 --json").json()["operation"]["id"], OPERATION);
}

#[test]
fn nobody_listening_is_exit_7() {
    let dir = tempfile::tempdir().unwrap();
    let ended = run(&dir.path().join("none"), "ls");
    assert_eq!((ended.code, ended.stdout.as_str()), (7, ""));
    assert!(ended.stderr.starts_with("volctl: ") && ended.stderr.contains("hint: "), "{}", ended.stderr);
    let ended = run(&dir.path().join("none"), "ls --json");
    assert_eq!((ended.code, ended.stderr.as_str()), (7, ""));
    assert_eq!(ended.json()["error"]["kind"], "daemon_unreachable");
}

#[test]
fn answers_that_make_no_sense_are_errors() {
    for answer in [json!([1]), json!(null), json!({ "volumes": 7 })] {
        let ended = Peer::answering(vec![Ok(answer)]).run("ls");
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{ended:?}");
    }
    let ended = Peer::new(|_, connection| connection.write("HTTP/1.1 400 Bad Request\n")).run("ls --json");
    assert_eq!((ended.code, ended.json()["error"]["kind"].as_str()), (7, Some("daemon_unreachable")));
}

#[test]
fn a_half_answer_is_asked_for_again() {
    let peer = Peer::new(|number, connection| {
        let request = connection.read();
        match number {
            0 => connection.write(r#"{"jsonrpc":"2.0","id":1,"resu"#),
            _ => connection.answer(&request, Ok(json!({ "exports": [] }))),
        }
    });
    let ended = peer.run("exports --json");
    assert_eq!((ended.code, ended.json()), (0, json!({ "schema": 1, "exports": [] })));
}

#[test]
fn a_look_up_does_not_wait_long_for_a_daemon_that_is_gone() {
    let peer = Peer::new(|_, connection| drop(connection.read()));
    let ended = peer.run("ls");
    assert_eq!((ended.code, ended.stdout.as_str()), (7, ""));
    assert!(ended.stderr.contains("could not be made again for 3s"), "{}", ended.stderr);
}

#[test]
fn a_wait_outlives_the_daemon() {
    let (sender, requests) = mpsc::channel();
    let peer = Peer::new(move |number, connection| {
        let request = connection.read();
        sender.send(request["params"].clone()).unwrap();
        connection.progress(&request, operation("running", "attaching"));
        if number == 2 {
            connection.answer(&request, Ok(changed(false)));
        }
    });
    let ended = peer.run("attach data1");
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    let sent: Vec<Value> = requests.try_iter().collect();
    assert_eq!(sent.len(), 3);
    assert!(sent[0] == sent[1] && sent[1] == sent[2], "the same request: {sent:?}");
}

#[test]
fn ctrl_c_stops_watching_and_says_how_to_go_on() {
    let (sender, asked) = mpsc::channel();
    let peer = Peer::new(move |_, connection| {
        let request = connection.read();
        connection.progress(&request, operation("running", "waiting for device"));
        sender.send(()).unwrap();
        connection.wait_for_end();
    });
    for line in ["attach data1", "attach data1 --json"] {
        let child = peer.start(line);
        asked.recv().unwrap();
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        let ended = Ended::from(child.wait_with_output().unwrap());
        assert_eq!(ended.code, 130);
        let told = if line.ends_with("json") { ended.json().to_string() } else { ended.stderr };
        assert!(told.contains("interrupted: attach of data1 is at") && told.contains("waiting for device"), "{told}");
        assert!(told.contains(&format!("volctl ops wait {OPERATION}")), "{told}");
    }
}

#[test]
fn ctrl_c_ends_the_attempts_to_connect_again() {
    let (sender, asked) = mpsc::channel();
    let peer = Peer::new(move |_, connection| {
        drop(connection.read());
        sender.send(()).ok();
    });
    let child = peer.start("attach data1");
    asked.recv().unwrap();
    asked.recv().unwrap();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 130);
    assert!(ended.stderr.contains("volctl ops"), "{}", ended.stderr);
}

#[test]
fn several_volumes_go_over_one_connection() {
    let peer = Peer::new(|number, connection| {
        match number {
            0 => return connection.begin_all(),
            1 => {}
            _ => panic!("they share a connection"),
        }
        let requests = [connection.read(), connection.read(), connection.read()];
        for request in requests.iter().rev() {
            let name = request["params"]["volume"].as_str().unwrap();
            let answer = if name == "x" {
                Err(not_found())
            } else {
                Ok(json!({ "changed": true, "volume": volume(name, false), "operation": null, "export": null }))
            };
            connection.answer(request, answer);
        }
    });
    let ended = peer.run("attach a x c --json");
    assert_eq!((ended.code, ended.stderr.as_str()), (1, ""));
    let document = ended.json();
    assert_eq!(document["schema"], 1);
    assert_eq!(document["results"][0]["volume"]["name"], "a");
    assert_eq!(document["results"][1]["error"]["kind"], "not_found");
    assert_eq!(document["results"][2]["volume"]["name"], "c");
}

#[test]
fn several_that_fail_alike_have_their_code() {
    let several = |answers: [Result<Value, Value>; 2]| {
        Peer::new(move |number, connection| match number {
            0 => connection.begin_all(),
            _ => answers.iter().for_each(|answer| {
                let request = connection.read();
                connection.answer(&request, answer.clone());
            }),
        })
    };
    assert_eq!(several([Err(not_found()), Err(not_found())]).run("attach x y").code, 3);
    assert_eq!(several([Ok(changed(false)), Ok(changed(false))]).run("detach x y").code, 0);
}

#[test]
fn each_of_several_has_a_request_id_of_its_own() {
    let (sender, requests) = mpsc::channel();
    let peer = Peer::new(move |number, connection| {
        if number == 0 {
            return connection.begin_all();
        }
        for _ in 0..2 {
            let request = connection.read();
            sender.send(request["params"]["request_id"].clone()).unwrap();
            connection.answer(&request, Ok(changed(false)));
        }
    });
    assert_eq!(peer.run("attach a b --request-id mine").code, 0);
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), ["mine/a", "mine/b"]);
}

#[test]
fn what_is_refused_here_is_not_sent() {
    let nowhere = Path::new("/nonexistent/socket");
    for (line, code, kind) in [
        ("attach a b a", 4, "conflict"),
        ("delete a", 2, "usage"),
        ("export a b --name n", 2, "usage"),
        ("atach a", 2, "usage"),
        ("create a --size 10GB", 2, "usage"),
        ("attach a --timeout 0", 2, "usage"),
        ("ops wait", 2, "usage"),
        ("", 2, "usage"),
    ] {
        let ended = run(nowhere, &format!("{line} --json"));
        assert_eq!((ended.code, ended.stderr.as_str()), (code, ""), "{line}");
        let document = ended.json();
        assert_eq!((&document["error"]["kind"], &document["operation"]), (&json!(kind), &Value::Null), "{line}");
        let ended = run(nowhere, line);
        assert_eq!((ended.code, ended.stdout.as_str()), (code, ""), "{line}");
    }
}

#[test]
fn help_and_version_need_no_daemon() {
    let nowhere = Path::new("/nonexistent/socket");
    for line in ["--help", "attach --help", "ops wait -h", "--version"] {
        let ended = run(nowhere, line);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{line}");
        assert!(ended.stdout.contains("volctl"), "{line}");
    }
}

#[test]
fn accepted_is_not_done() {
    let answer =
        json!({ "changed": null, "operation": operation("running", "resolve"), "volume": null, "export": null });
    let peer = Peer::answering(vec![Ok(answer)]);
    assert_eq!(peer.run("attach data1 --no-wait -q").stdout, format!("{OPERATION}\n"));
    assert!(peer.run("attach data1 --no-wait").stdout.contains(&format!("volctl ops wait {OPERATION}")));
}

#[test]
fn lists_are_plain_columns_in_a_pipe() {
    let mut second = volume("two words\u{1b}[31m", true);
    second["stale"] = json!(true);
    let peer =
        Peer::answering(vec![Ok(json!({ "volumes": [volume("data1", false), second], "notes": ["CloudStack: no"] }))]);
    let ended = peer.run("ls");
    assert_eq!(
        ended.stdout,
        format!(
            "NAME                 ID                                     SIZE  STATE        VM       DEVICE                                       EXPORT                                    TAGS\n\
             data1                {VOLUME}    10G  Ready        this-VM  {DEVICE}  -                                         -\n\
             two words\\u{{1b}}[31m  {VOLUME}    10G  Ready,STALE  this-VM  {DEVICE}  vol-{VOLUME}  -\n"
        )
    );
    assert!(ended.stderr.starts_with("note: CloudStack: no\nnote: CloudStack's part is "), "{}", ended.stderr);
    assert_eq!(peer.run("ls -q").stdout, format!("{VOLUME}\n{VOLUME}\n"));
}

#[test]
fn a_terminal_gets_colour_unless_no_color_says_otherwise() {
    let peer = Peer::answering(vec![Ok(json!({ "volumes": [volume("data1", false)] }))]);
    let (code, shown) = on_terminal(&peer, "", "ls", "");
    assert!(code == 0 && shown.contains("\u{1b}["), "{shown:?}");
    let (_, shown) = on_terminal(&peer, "NO_COLOR=1", "ls", "");
    assert!(shown.contains("data1") && !shown.contains("\u{1b}[3"), "{shown:?}");
}

#[test]
fn a_terminal_sees_the_step_under_way() {
    let peer = Peer::new(|_, connection| {
        let request = connection.read();
        connection.progress(&request, operation("running", "waiting for device"));
        connection.answer(&request, Ok(changed(false)));
    });
    let (_, shown) = on_terminal(&peer, "", "attach data1", "");
    assert!(shown.contains("attach data1: waiting for device ("), "{shown:?}");
    assert!(shown.contains(&format!("data1 attached to this VM: {DEVICE}")), "{shown:?}");
}

#[test]
fn delete_asks_with_the_facts_and_deletes_what_it_asked_about() {
    let (sender, requests) = mpsc::channel();
    let peer = Peer::new(move |_, connection| {
        let request = connection.read();
        sender.send((request["method"].clone(), request["params"]["volume"].clone())).unwrap();
        let answer = match request["method"].as_str() {
            Some("volume.get") => json!({ "volume": volume("data1", false) }),
            _ => changed(false),
        };
        connection.answer(&request, Ok(answer));
    });
    let asked: Vec<_> = vec![(json!("volume.get"), json!("data1"))];
    let (code, shown) = on_terminal(&peer, "", "delete data1", "n\n");
    assert!(code == 1 && shown.contains("nothing was sent"), "{shown}");
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), asked);

    let (code, shown) = on_terminal(&peer, "", "delete data1", "y\n");
    assert!(shown.contains(&format!("data1 ({VOLUME}), 10G")) && shown.contains("volctl recover"), "{shown}");
    assert_eq!(code, 0, "{shown}");
    assert_eq!(requests.try_iter().collect::<Vec<_>>()[1], (json!("volume.delete"), json!(VOLUME)));

    let (code, shown) = on_terminal(&peer, "", "delete 5f0c8a", "y\n");
    assert!(code == 2 && shown.contains("only the beginning of an id"), "{shown}");
}

#[test]
fn detach_from_a_running_vm_must_be_confirmed() {
    let peer = |state: &'static str| {
        let (sender, requests) = mpsc::channel();
        let peer = Peer::new(move |_, connection| {
            let request = connection.read();
            sender.send(request["params"]["confirmed"].clone()).unwrap();
            let answer = match request["method"].as_str() {
                Some("vm.get") => json!({ "id": VM, "name": "other", "state": state, "this_vm": false }),
                _ => changed(false),
            };
            connection.answer(&request, Ok(answer));
        });
        (peer, requests)
    };
    let (running, requests) = peer("Running");
    let ended = running.run("detach data1 --from other");
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("other") && ended.stderr.contains("--yes"), "{}", ended.stderr);
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), [Value::Null]);
    assert_eq!(running.run("detach data1 --from other --yes").code, 0);
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), [json!(true)]);

    let (stopped, requests) = peer("Stopped");
    assert_eq!(stopped.run("detach data1 --from other").code, 0);
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), [Value::Null, json!(false)]);
}

#[test]
fn waiting_for_what_failed_fails_alike() {
    let mut failed = operation("failed", "attaching");
    failed["error"] = json!({ "kind": "cloudstack_refused", "message": "no capacity", "hint": null, "retryable": false,
                              "cloudstack": { "code": 533, "cserrorcode": null, "text": "insufficient" } });
    let ended = Peer::answering(vec![Ok(json!({ "operation": failed }))]).run("ops wait 0b5e7c1a");
    assert_eq!(ended.code, 5);
    assert_eq!(ended.stderr, "volctl: no capacity\nCloudStack: insufficient\n");
    let ended = Peer::answering(vec![Ok(changed(false))]).run("ops wait 0b5e7c1a");
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "attach of data1 succeeded\n"));
}

#[test]
fn an_unhealthy_daemon_is_exit_1() {
    let check = json!({ "name": "cloudstack", "ok": false, "message": "no answer for 4m", "age_seconds": 240 });
    let peer = Peer::answering(vec![Ok(json!({ "healthy": false, "checks": [check] }))]);
    let ended = peer.run("health");
    assert_eq!(ended.code, 1);
    assert_eq!(ended.stdout, "CHECK       STATE     AGE  MESSAGE\ncloudstack  bad        4m  no answer for 4m\n");
    let ended = peer.run("health --json");
    assert_eq!((ended.code, ended.json()["healthy"].as_bool()), (1, Some(false)));
}

#[test]
fn what_a_device_is_and_whose() {
    let answer = json!({ "volume_id": VOLUME, "device": volume("data1", false)["device"] });
    let peer = Peer::answering(vec![Ok(answer)]);
    assert_eq!(peer.run("device data1 --wait 1s").stdout, format!("{DEVICE}\n"));
    let found = json!({ "volume": volume("data1", false), "device": volume("data1", false)["device"], "partition": 2 });
    let peer = Peer::answering(vec![Ok(found)]);
    assert_eq!(peer.run("find /dev/vdb2").stdout, format!("data1 ({VOLUME}): partition 2 of {DEVICE}\n"));
    assert_eq!(peer.run("find vdb2 -q").stdout, format!("{VOLUME}\n"));
}

#[test]
fn a_daemon_that_says_nothing_is_not_waited_for_for_ever() {
    let peer = Peer::new(|_, connection| {
        connection.read();
        connection.wait_for_end();
    });
    let ended = peer.run("attach data1 --timeout 1s --json");
    assert_eq!((ended.code, ended.json()["error"]["kind"].as_str()), (6, Some("timeout")));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (sender, gone) = mpsc::channel::<()>();
    let peer = Peer::new(move |_, connection| {
        let request = connection.read();
        gone.recv().ok();
        connection.answer(&request, Ok(json!({ "volumes": [] })));
    });
    let mut child = peer.start("ls");
    drop(child.stdout.take());
    sender.send(()).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn data_that_cannot_be_written_is_an_error() {
    let peer = Peer::answering(vec![Ok(json!({ "volumes": [] }))]);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = Ended::from(command(&peer.socket(), "ls").stdout(full).output().unwrap());
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.starts_with("volctl: cannot write to stdout: "), "{}", ended.stderr);
}
