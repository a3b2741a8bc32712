//! The OpenAPI document is true: every operation is there, is answered as described, and is open to
//! whom the document says.

use model::admin::{CreateAdmin, CreatedAdmin, Role};
use runtime::api_client::{ApiClient, ApiError};
use runtime::tls;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::described::{Described, Operation};
use crate::host::{Keys, join};
use crate::stage::{Place, Running, soon};

const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "PATCH"];

/// Asks over the local socket, as HTTP says it.
async fn ask(running: &Running, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: mesh\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = UnixStream::connect(running.socket()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

/// A coordinator and its document, held against each other with every question.
struct Court {
    running: Running,
    described: Described,
}

impl Court {
    async fn new(place: &Place) -> Self {
        let running = place.start().await;
        let (status, document) = ask(&running, "GET", "/v1/openapi.json", &Value::Null).await;
        assert_eq!(status, 200);
        Self {
            running,
            described: Described::new(document),
        }
    }

    async fn ask(&mut self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (status, answer) = ask(&self.running, method, path, &body).await;
        self.described
            .check((method, path), &body, (status, &answer));
        (status, answer)
    }

    async fn expect(&mut self, wanted: u16, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert_eq!(status, wanted, "{method} {path}: {answer}");
        answer
    }
}

#[tokio::test]
async fn every_operation_answers_as_its_document_says() {
    let place = Place::new();
    let mut court = Court::new(&place).await;
    let none = || Value::Null;
    court.expect(200, "GET", "/v1/status", none()).await;
    court.expect(200, "GET", "/v1/openapi.json", none()).await;
    work_with_tokens(&mut court).await;
    work_with_policies(&mut court).await;
    work_with_hosts(&mut court).await;
    work_with_admins(&mut court).await;
    court
        .expect(200, "GET", "/v1/audit?newest=true&limit=7", none())
        .await;
    court
        .expect(422, "GET", "/v1/audit?limit=many", none())
        .await;
    court.expect(200, "GET", "/v1/backup", none()).await;
    court.expect(200, "GET", "/v1/recovery", none()).await;
    court
        .expect(409, "POST", "/v1/recovery/finish", json!({}))
        .await;
    let why = json!({ "why": "a test" });
    court.expect(200, "POST", "/v1/recovery", why).await;
    court
        .expect(200, "POST", "/v1/recovery/finish", json!({ "force": true }))
        .await;
    work_with_the_authority(&mut court).await;
    misunderstand(&mut court).await;
    let seen = &court.described.seen;
    for operation in court.described.operations() {
        let id = &operation.id;
        assert!(seen.contains(&(id.clone(), 200)), "{id} was never done");
    }
}

async fn work_with_tokens(court: &mut Court) {
    let order =
        json!({ "valid_for_secs": 60, "labels": { "role": "web" }, "uses": 2, "names": ["vm-*"] });
    let made = court.expect(200, "POST", "/v1/tokens", order).await;
    court.expect(200, "GET", "/v1/tokens", Value::Null).await;
    let path = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    court.expect(200, "DELETE", &path, Value::Null).await;
    let order = json!({ "valid_for_secs": 0 });
    court.expect(422, "POST", "/v1/tokens", order).await;
    court
        .expect(404, "DELETE", "/v1/tokens/0000000000000000", Value::Null)
        .await;
}

async fn work_with_hosts(court: &mut Court) {
    let token = court.running.token().await;
    let at = court.running.at();
    let first = join(&at, &token, "vm-1", Keys::new(1)).await.unwrap();
    for (name, seed) in [("vm-2", 2), ("vm-3", 3)] {
        join(&at, &token, name, Keys::new(seed)).await.unwrap();
    }
    court.expect(200, "GET", "/v1/hosts", Value::Null).await;
    court
        .expect(503, "POST", "/v1/hosts/vm-1/rotate-key", Value::Null)
        .await;
    let mut stream = first.open(&at).await;
    stream.next().await.unwrap();
    court
        .expect(200, "GET", "/v1/hosts/vm-1", Value::Null)
        .await;
    court
        .expect(200, "POST", "/v1/hosts/vm-1/rotate-key", Value::Null)
        .await;
    let set = json!({ "labels": { "role": "db" }, "base": {} });
    court
        .expect(200, "PUT", "/v1/hosts/vm-1/labels", set.clone())
        .await;
    court.expect(409, "PUT", "/v1/hosts/vm-1/labels", set).await;
    court
        .expect(409, "PUT", "/v1/hosts/vm-1/name", json!({ "name": "vm-2" }))
        .await;
    court
        .expect(200, "PUT", "/v1/hosts/vm-1/name", json!({ "name": "db-1" }))
        .await;
    let flow = json!({ "from": "db-1", "to": "vm-2", "protocol": "icmp" });
    court.expect(200, "POST", "/v1/why", flow).await;
    let flow = json!({ "from": "db-1", "to": "vm-9", "protocol": "icmp" });
    court.expect(404, "POST", "/v1/why", flow).await;
    let flow = json!({ "from": "db-1", "to": "vm-2", "protocol": "smoke" });
    court.expect(422, "POST", "/v1/why", flow).await;
    court
        .expect(200, "DELETE", "/v1/hosts/vm-2", Value::Null)
        .await;
    let gone = court
        .expect(200, "POST", "/v1/hosts/vm-3/revoke", Value::Null)
        .await;
    court.expect(200, "GET", "/v1/removed", Value::Null).await;
    let path = format!("/v1/removed/{}", gone["id"].as_str().unwrap());
    court.expect(200, "GET", &path, Value::Null).await;
}

async fn work_with_policies(court: &mut Court) {
    let files = |text: &str| json!([{ "path": "policy.yaml", "text": text }]);
    let good = files(
        "fleet: main\nallow:\n  - { id: ssh, from: any, to: any, tcp: [22] }\n  - { id: gone, from: role=x, to: any, tcp: [1] }\n",
    );
    let apply = json!({ "files": good, "base": 1, "message": "a test" });
    court.expect(200, "POST", "/v1/policy", apply.clone()).await;
    court.expect(409, "POST", "/v1/policy", apply).await;
    let wrong = json!({ "files": files("fleet: main\nallow: [\n") });
    let refused = court.expect(422, "POST", "/v1/policy", wrong).await;
    assert_ne!(refused["diagnostics"], Value::Null);
    court.expect(200, "GET", "/v1/policy", Value::Null).await;
    court
        .expect(200, "GET", "/v1/policy/rollout", Value::Null)
        .await;
    court
        .expect(200, "POST", "/v1/policy/plan", json!({ "version": 1 }))
        .await;
    court
        .expect(422, "POST", "/v1/policy/plan", json!({}))
        .await;
    court
        .expect(404, "POST", "/v1/policy/plan", json!({ "version": 99 }))
        .await;
    court
        .expect(404, "POST", "/v1/policy/rollback", json!({ "to": 99 }))
        .await;
    court
        .expect(200, "POST", "/v1/policy/rollback", json!({ "to": 1 }))
        .await;
    court
        .expect(200, "GET", "/v1/policy/versions", Value::Null)
        .await;
    court
        .expect(200, "GET", "/v1/policy/versions/2", Value::Null)
        .await;
}

async fn work_with_admins(court: &mut Court) {
    let order = json!({ "name": "eve", "role": "viewer" });
    court.expect(200, "POST", "/v1/admins", order.clone()).await;
    court.expect(409, "POST", "/v1/admins", order).await;
    court.expect(200, "GET", "/v1/admins", Value::Null).await;
    court
        .expect(200, "POST", "/v1/admins/eve/credential", Value::Null)
        .await;
    court
        .expect(200, "DELETE", "/v1/admins/eve", Value::Null)
        .await;
}

async fn work_with_the_authority(court: &mut Court) {
    court.expect(200, "GET", "/v1/authority", Value::Null).await;
    court
        .expect(200, "POST", "/v1/authority/rotate", Value::Null)
        .await;
    court
        .expect(409, "POST", "/v1/authority/rotate", Value::Null)
        .await;
    let force = json!({ "force": true });
    soon(async {
        let path = "/v1/authority/retire";
        // Everything is signed again first.
        while court.ask("POST", path, force.clone()).await.0 != 200 {}
    })
    .await;
}

/// Sends what nobody understands to every operation that reads something.
async fn misunderstand(court: &mut Court) {
    for operation in court.described.operations() {
        let path = |part: &str| filled(&operation, part);
        let method = operation.method.as_str();
        if operation.takes_body {
            let nonsense = json!({ "nonsense": true });
            court.expect(400, method, &path("x"), nonsense).await;
        }
        if operation.path.contains('{') && !operation.takes_body {
            court.expect(422, method, &path("~"), Value::Null).await;
        }
    }
    for path in [
        "hosts/vm-9",
        "removed/00000000000000000000000000000000",
        "policy/versions/99",
    ] {
        let path = format!("/v1/{path}");
        court.expect(404, "GET", &path, Value::Null).await;
    }
}

#[tokio::test]
async fn what_is_not_described_is_not_there() {
    let place = Place::new();
    let court = Court::new(&place).await;
    let operations = court.described.operations();
    for operation in &operations {
        for method in METHODS {
            let path = filled(operation, "x");
            let (status, answer) = ask(&court.running, method, &path, &Value::Null).await;
            let is_described = operations
                .iter()
                .any(|it| it.path == operation.path && it.method == method);
            assert_eq!(status == 405, !is_described, "{method} {path}: {answer}");
            assert!(
                !answer["message"].to_string().contains("no such request"),
                "{answer}"
            );
        }
    }
}

/// Roles, and those that may do what needs them.
const ROLES: [(Role, &[&str]); 4] = [
    (Role::Viewer, &["viewer"]),
    (Role::Operator, &["viewer", "operator"]),
    (Role::PolicyEditor, &["viewer", "policy_editor"]),
    (
        Role::Admin,
        &["viewer", "operator", "policy_editor", "admin"],
    ),
];

#[tokio::test]
async fn operations_are_open_to_whom_the_document_says() {
    let place = Place::new();
    let mut court = Court::new(&place).await;
    let nobody = client(&place, &court.running, "mesh-admin1.eve.aaaa");
    for (role, may) in ROLES {
        let eve = credential(&court.running, role).await;
        let eve = client(&place, &court.running, &eve);
        for operation in court.described.operations() {
            let body = harmless(&operation.id);
            let path = filled(&operation, "0000000000000000");
            let (status, answer) = ask_with(&eve, &operation.method, &path, &body).await;
            let Some(needed) = &operation.role else {
                assert_eq!(status, 404, "{}: not at this door", operation.id);
                continue;
            };
            let id = &operation.id;
            assert_eq!(
                status != 403,
                may.contains(&needed.as_str()),
                "{role:?} {id}: {answer}"
            );
            let asked = (operation.method.as_str(), path.as_str());
            court.described.check(asked, &body, (status, &answer));
            let (status, answer) = ask_with(&nobody, &operation.method, &path, &body).await;
            assert_eq!(status, 401, "{id}");
            court.described.check(asked, &body, (status, &answer));
        }
    }
}

fn client(place: &Place, running: &Running, secret: &str) -> ApiClient {
    let config = tls::pinned_client(place.credential().root_pin);
    ApiClient::tls(vec![running.at()], config, secret.to_owned())
}

async fn credential(running: &Running, role: Role) -> String {
    let order = CreateAdmin {
        name: format!("{}-1", role.name().replace('_', "-"))
            .parse()
            .unwrap(),
        role,
        valid_for_secs: None,
    };
    let made: CreatedAdmin = soon(running.local().post("/v1/admins", &order))
        .await
        .unwrap();
    made.credential
}

async fn ask_with(client: &ApiClient, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let answer: Result<Value, ApiError> = match method {
        "GET" => soon(client.get(path)).await,
        "DELETE" => soon(client.delete(path)).await,
        "PUT" => soon(client.put(path, body)).await,
        _ => soon(client.post(path, body)).await,
    };
    match answer {
        Ok(answer) => (200, answer),
        Err(ApiError::Refused { status, body }) => (status, serde_json::to_value(body).unwrap()),
        Err(other) => panic!("{method} {path}: {other}"),
    }
}

/// A body that is understood, and asks for as little as can be.
fn harmless(id: &str) -> Value {
    match id {
        "why" => json!({ "from": "a", "to": "b", "protocol": "icmp" }),
        "setLabels" => json!({ "labels": {} }),
        "renameHost" => json!({ "name": "b" }),
        "createToken" => json!({ "valid_for_secs": 60 }),
        "applyPolicy" => json!({ "files": [], "dry_run": true }),
        "rollBackPolicy" => json!({ "to": 99 }),
        "createAdmin" => json!({ "name": "admin", "role": "viewer" }),
        _ => json!({}),
    }
}

fn filled(operation: &Operation, part: &str) -> String {
    let parts = operation
        .path
        .split('/')
        .map(|it| match it.starts_with('{') {
            true => part,
            false => it,
        });
    parts.collect::<Vec<_>>().join("/")
}
