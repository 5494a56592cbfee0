//! The doors' section of the file, checked: each problem with its path and what to change. Pure.

use pbx_crds::sidecar_config::SidecarConfig;

/// Appends what is wrong with the doors of `file`.
pub fn check(file: &SidecarConfig, problems: &mut Vec<String>) {
    let doors = &file.doors;
    let haast = doors.haast.as_ref().and_then(|door| door.listen);
    let ami = doors.ami.as_ref();
    let tls = [
        ("http.tlsListen", doors.http.tls_listen),
        ("haast.listen", haast),
        ("ami.tlsListen", ami.and_then(|door| door.tls_listen)),
    ];
    for (field, _) in tls.iter().filter(|(_, listen)| listen.is_some()) {
        if doors.tls.is_none() {
            problems.push(format!(
                "doors.{field}: needs a certificate: set doors.tls, or remove it"
            ));
        }
    }
    if haast.is_some() && doors.token_file.is_none() {
        problems
            .push("doors.haast.listen: needs a token: set doors.tokenFile, or remove it".into());
    }
    if let Some(door) = ami {
        if door.users_file.is_none() {
            problems.push("doors.ami.usersFile: missing: name a file that lists the users".into());
        }
        if door.listen.is_none() && door.tls_listen.is_none() && door.socket.is_none() {
            problems.push("doors.ami.listen: missing: give listen, tlsListen or socket".into());
        }
    }
    let plain = [
        ("http", Some(file.http)),
        (
            "doors.droonga.listen",
            doors.droonga.as_ref().map(|door| door.listen),
        ),
        ("doors.ami.listen", ami.and_then(|door| door.listen)),
    ];
    let tls = tls.map(|(field, listen)| (format!("doors.{field}"), listen));
    let plain = plain.map(|(field, listen)| (field.to_owned(), listen));
    let all: Vec<_> = plain
        .into_iter()
        .chain(tls)
        .filter_map(|(field, listen)| Some((field, listen?)))
        .collect();
    for (at, (field, listen)) in all.iter().enumerate() {
        if let Some((other, _)) = all[..at].iter().find(|(_, known)| known == listen) {
            problems.push(format!(
                "{field}: {listen} is that of {other} already: choose another port"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_said_with_its_path() {
        let text = "
cluster: office
nodes: []
heartbeat: {keyFile: /key}
asterisk: {userDirs: []}
http: '0.0.0.0:8081'
doors: {http: {tlsListen: '0.0.0.0:8443'}, haast: {listen: '0.0.0.0:3002'}, droonga: {listen: '0.0.0.0:8081'}, ami: {}}
";
        let file = serde_yaml::from_str(text).unwrap();
        let mut problems = Vec::new();
        check(&file, &mut problems);
        let problems = problems.join("\n");
        for part in [
            "doors.http.tlsListen: needs a certificate",
            "doors.haast.listen: needs a certificate",
            "doors.haast.listen: needs a token",
            "doors.ami.usersFile: missing",
            "doors.ami.listen: missing",
            "doors.droonga.listen: 0.0.0.0:8081 is that of http already",
        ] {
            assert!(problems.contains(part), "{part} is not in\n{problems}");
        }
    }
}
