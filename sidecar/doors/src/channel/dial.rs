//! Opening streams to peers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::frame::{self, FrameBuffer};
use super::noise::Dialling;
use super::socket::{prepare, read_frame};
use super::{ChannelError, ChannelKey, PeerAddresses, PeerStream, Service};

/// Connecting and shaking hands, to one address.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the peers. Cheap to clone.
#[derive(Clone)]
pub struct Channel {
    key: ChannelKey,
    own: u8,
    addresses: watch::Receiver<PeerAddresses>,
}

impl Channel {
    /// Of the node in seat `own`, to peers at `addresses`.
    pub fn new(key: ChannelKey, own: u8, addresses: watch::Receiver<PeerAddresses>) -> Self {
        Self {
            key,
            own,
            addresses,
        }
    }

    /// A stream to `service` of the node in `seat`, over the first of its addresses that answers. It ends when the peer does not
    /// serve it. Takes a second at most for each address.
    pub async fn open(&self, seat: usize, service: Service) -> Result<PeerStream, ChannelError> {
        let addresses = self.addresses.borrow().get(seat).cloned();
        let mut outcome = Err(ChannelError::NoAddress(seat));
        for address in addresses.unwrap_or_default() {
            let opened = self.open_at(address, seat as u8, service);
            outcome = match tokio::time::timeout(PATIENCE, opened).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(ChannelError::Deadline(PATIENCE)),
            };
        }
        outcome
    }

    async fn open_at(
        &self,
        address: SocketAddr,
        seat: u8,
        service: Service,
    ) -> Result<PeerStream, ChannelError> {
        let connected = TcpStream::connect(address).await;
        let mut socket = connected.map_err(|source| ChannelError::Connect { address, source })?;
        prepare(&socket)?;
        let (dialling, hello) = Dialling::new(&self.key, self.own, seat)?;
        let mut bytes = Vec::with_capacity(128);
        frame::append(&mut bytes, hello.len(), |room| {
            room.copy_from_slice(&hello);
            hello.len()
        });
        socket.write_all(&bytes).await?;
        let mut arrived = FrameBuffer::default();
        let answer = read_frame(&mut socket, &mut arrived).await?;
        let session = dialling.on_answer(&answer)?;
        let mut stream = PeerStream::new(socket, session, arrived);
        stream.write_all(&[service.byte()]).await?;
        stream.flush().await?;
        Ok(stream)
    }
}
