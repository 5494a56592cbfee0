//! What the sidecar asks of Asterisk, in its own words: its version, and its trunks.

use super::client::{Ami, AmiError};
use super::codec::Message;

impl Ami {
    /// Asterisk's version, as `22.10.1`.
    pub async fn version(&self) -> Result<String, AmiError> {
        let response = self.action("CoreSettings", &[]).await?;
        let version = response.message.get("AsteriskVersion").unwrap_or_default();
        // Packagers append their own: `22.10.1~dfsg+~cs6.17.60671434-1`.
        let number = |char: char| char.is_ascii_digit() || char == '.';
        Ok(version.chars().take_while(|&char| number(char)).collect())
    }

    /// Takes the registrations away from the other side, at once and without waiting for its
    /// answer: while Asterisk still knows them, so before the files are switched. All are tried;
    /// the first error is returned.
    pub async fn unregister_trunks(&self, names: &[String]) -> Result<(), AmiError> {
        let mut outcome = Ok(());
        for name in names {
            let answer = self
                .action("PJSIPUnregister", &[("Registration", name)])
                .await;
            outcome = outcome.and(answer.map(drop));
        }
        outcome
    }

    /// The channels that exist, with the call that each is part of.
    pub async fn channels(&self) -> Result<Vec<(String, String)>, AmiError> {
        let response = self.action("CoreShowChannels", &[]).await?;
        let text = |entry: &Message, name| entry.get(name).unwrap_or_default().to_owned();
        let entries = response.entries.iter();
        Ok(entries
            .map(|entry| (text(entry, "Uniqueid"), text(entry, "Linkedid")))
            .collect())
    }

    /// Lets every module read its files again; calls are not touched.
    pub async fn reload_all(&self) -> Result<(), AmiError> {
        self.action("Reload", &[]).await.map(drop)
    }

    /// Lets these modules, and no others, read their files again; calls are not touched. With the
    /// trunks' files switched this registers after a promotion, and forgets after a demotion.
    /// All are told; the first error is returned.
    pub async fn reload_modules(&self, modules: &[&str]) -> Result<(), AmiError> {
        let mut outcome = Ok(());
        for module in modules {
            let answer = self.action("Reload", &[("Module", module)]).await;
            outcome = outcome.and(answer.map(drop));
        }
        outcome
    }
}
