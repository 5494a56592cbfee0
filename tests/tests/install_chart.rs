//! Helm's whole life of the chart: it is upgraded in place, and its removal leaves resource and telephone systems as they are.

use pbx_tests::images::{Profile, build_project_images};
use pbx_tests::office::{NAMESPACE, OPERATOR_NAMESPACE, RELEASE, chart, helm, install};
use pbx_tests::scenario::{kills, pods};
use support::office;

mod support;

#[test]
fn upgrade_and_removal_leave_the_telephone_system_alone() {
    let office = office();
    let lives = pods::lives(office);
    let cluster = &office.cluster;
    let set = ["--wait", "--timeout", "2m", "--set", "replicas=2"];
    helm(cluster, &["upgrade", RELEASE, &chart().unwrap()], &set).unwrap();
    assert_eq!(pods::lives(office), lives);

    helm(
        cluster,
        &["uninstall", RELEASE],
        &["--wait", "--timeout", "2m"],
    )
    .unwrap();
    let kept = ["get", "pbx", "office", "--namespace", NAMESPACE];
    cluster.kubectl(&kept).unwrap();
    assert_eq!(pods::lives(office), lives);

    let images = build_project_images(Profile::Local).unwrap();
    install(cluster, &images).unwrap();
    office.wait_whole().unwrap();
    assert_eq!(pods::lives(office), lives);
    kills::kill_asterisk(office).unwrap();
}

#[test]
fn both_namespaces_enforce_restricted_pods() {
    let cluster = &office().cluster;
    for namespace in [NAMESPACE, OPERATOR_NAMESPACE] {
        let run = [
            "run",
            "intruder",
            "--image=localhost/none",
            "--dry-run=server",
            "--namespace",
            namespace,
        ];
        let error = cluster.kubectl(&run).unwrap_err().to_string();
        assert!(error.contains("violates PodSecurity"), "{error}");
    }
}
