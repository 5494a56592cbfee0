//! What all tests on the cluster begin with: the telephone system, whole, made when it is not there.

use std::sync::OnceLock;

use pbx_tests::office::{Office, ready};

/// The telephone system, whole. Run these tests with `--test-threads=1`: there is one, and each of them breaks it.
pub fn office() -> &'static Office {
    static OFFICE: OnceLock<Office> = OnceLock::new();
    let office = OFFICE.get_or_init(|| ready().expect("the telephone system can be made"));
    office
        .wait_whole()
        .expect("the test before has left a whole system");
    office
}
