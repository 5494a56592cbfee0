//! The two SIP messages of the prober: an OPTIONS that it sends and the 200 that comes back, told from others by the Call-ID.
//! No SIP stack: nothing else of an answer matters here.

use std::net::SocketAddr;

const CALL_ID: &str = "pbxha-probe-";

/// An OPTIONS without a user part, which Asterisk answers with 200 whoever asks.
pub(crate) fn options(run: u64, number: usize, from: SocketAddr, to: SocketAddr) -> String {
    format!(
        "OPTIONS sip:{to} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {from};rport;branch=z9hG4bK-{run}-{number}\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:probe@{from}>;tag={number}\r\n\
         To: <sip:{to}>\r\n\
         Call-ID: {CALL_ID}{run}-{number}\r\n\
         CSeq: 1 OPTIONS\r\n\
         Contact: <sip:probe@{from}>\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// The number of the request of `run` that these bytes answer with 200.
pub(crate) fn answered_number(run: u64, message: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(message).ok()?;
    if !text.starts_with("SIP/2.0 200 ") {
        return None;
    }
    let call_id = text
        .lines()
        .find_map(|line| line.strip_prefix("Call-ID: "))?;
    let (found, number) = call_id.strip_prefix(CALL_ID)?.split_once('-')?;
    (found.parse() == Ok(run))
        .then(|| number.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: &str, run: u64, number: usize) -> Vec<u8> {
        let address = "198.18.0.13:5060".parse().unwrap();
        let request = options(run, number, address, address);
        let headers = request.split_once("\r\n").unwrap().1;
        format!("SIP/2.0 {status}\r\n{headers}").into_bytes()
    }

    #[test]
    fn only_a_200_to_this_run_counts() {
        assert_eq!(answered_number(7, &answer("200 OK", 7, 42)), Some(42));
        assert_eq!(answered_number(7, &answer("200 OK", 8, 42)), None);
        assert_eq!(
            answered_number(7, &answer("503 Service Unavailable", 7, 42)),
            None
        );
        assert_eq!(answered_number(7, b"\xff\xfe"), None);
        assert_eq!(answered_number(7, b""), None);
    }
}
