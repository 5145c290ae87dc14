//! The typed client against the real server: both sides of the wire types.
use futures_util::StreamExt;
use ingle_api::client::{Client, ClientError};
use ingle_api::localai::{DetokenizeRequest, TokenizeRequest};
use ingle_api::openai::{ChatMessage, ChatRequest, CompletionRequest, Content, Prompt, Role, StreamOptions};
use tokio::net::TcpListener;

use super::Setup;
use crate::serve;

async fn client() -> (Client, super::Server) {
    let server = Setup::default().build();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(serve(listener, server.state.clone(), std::future::pending()));
    (Client::new(&format!("http://{address}/v1/"), None), server)
}

fn chat(model: &str) -> ChatRequest {
    let message = ChatMessage::new(Role::User, Content::Text("Hi".into()));
    ChatRequest { model: Some(model.into()), messages: vec![message], ..ChatRequest::default() }
}

#[tokio::test]
async fn the_client_reads_what_the_server_writes() {
    let (client, _server) = client().await;
    assert!(client.ready().await.expect("an answer"));
    assert_eq!(client.version().await.expect("an answer").version, env!("CARGO_PKG_VERSION"));
    assert!(client.models().await.expect("an answer").data.iter().any(|model| model.id == "m"));
    let whole = client.chat(chat("m")).await.expect("an answer");
    assert_eq!(whole.choices[0].message.content.as_deref(), Some("Hello, Wörld!"));
    let request = CompletionRequest { prompt: Some(Prompt::Text("x".into())), ..CompletionRequest::default() };
    let completed = client.completion(request).await.expect("an answer");
    assert_eq!(completed.choices[0].text, "Hello, Wörld!");
    let tokenize =
        TokenizeRequest { model: Some("m".into()), content: Some("Hi".into()), ..TokenizeRequest::default() };
    let tokens = client.tokenize(&tokenize).await.expect("an answer").tokens;
    let detokenize = DetokenizeRequest { model: Some("m".into()), tokens: Some(tokens) };
    assert_eq!(client.detokenize(&detokenize).await.expect("an answer").content, "Hi");
}

#[tokio::test]
async fn the_client_follows_a_stream_to_its_end() {
    let (client, _server) = client().await;
    let request = ChatRequest { stream_options: Some(StreamOptions { include_usage: Some(true) }), ..chat("m") };
    let chunks: Vec<_> = client.chat_stream(request).await.expect("a head").collect().await;
    let chunks: Vec<_> = chunks.into_iter().map(|chunk| chunk.expect("no failure")).collect();
    let contents = chunks.iter().flat_map(|chunk| &chunk.choices).filter_map(|choice| choice.delta.content.clone());
    assert_eq!(contents.collect::<String>(), "Hello, Wörld!");
    let usage = chunks.last().and_then(|chunk| chunk.usage.clone()).flatten().expect("usage comes last");
    assert_eq!(usage.completion_tokens, "Hello, Wörld!".len() as u64 + 1);
}

#[tokio::test]
async fn the_client_is_told_why_it_was_refused() {
    let (client, _server) = client().await;
    match client.chat(chat("nothing")).await {
        Err(ClientError::Api { status: 404, body, .. }) => {
            assert_eq!(body.code.as_deref(), Some("model_not_found"));
        }
        other => panic!("{other:?}"),
    }
}
