//! Messages over a stream: four bytes of length, most significant first, then the bytes.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::ChannelError;

/// Reads the next message; `None` at the orderly end between two. Not cancel-safe: let one task read.
pub async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    max_bytes: usize,
) -> Result<Option<Vec<u8>>, ChannelError> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > max_bytes {
        return Err(ChannelError::TooLong(length));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes a message, and waits until it has left.
pub async fn write_message(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &[u8],
) -> Result<(), ChannelError> {
    let length = u32::try_from(message.len());
    let length = length.map_err(|_| ChannelError::TooLong(message.len()))?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(message).await?;
    Ok(stream.flush().await?)
}
