//! The table of methods, and the document that is generated from it and from the types.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::api::*;
use crate::error::Kind;

/// The version of OpenRPC that the document follows.
const OPENRPC: &str = "1.3.2";

/// Where OpenRPC describes its own documents.
const META_SCHEMA: &str = "https://raw.githubusercontent.com/open-rpc/meta-schema/master/schema.json";

/// No parameters.
#[derive(JsonSchema)]
struct Nothing {}

/// What can go wrong in every look.
const LOOK: &[Kind] = &[
    Kind::Usage,
    Kind::NotFound,
    Kind::Ambiguous,
    Kind::CloudstackRefused,
    Kind::CloudstackAuth,
    Kind::CloudstackUnreachable,
    Kind::DeviceMissing,
    Kind::DeviceMismatch,
    Kind::Store,
    Kind::Internal,
];

/// What beside that can go wrong in every change.
const CHANGE: &[Kind] =
    &[Kind::Conflict, Kind::Busy, Kind::InUse, Kind::Timeout, Kind::NotPermitted, Kind::Stuck, Kind::Cancelled];

/// The document.
pub fn document() -> Value {
    let mut types = Types::new();
    let changes = [
        types.change::<VolumeCreate>(method::VOLUME_CREATE, "Create a volume, attach it, export it"),
        types.change::<VolumeAttach>(method::VOLUME_ATTACH, "Attach a volume to this VM or another one"),
        types.change::<VolumeDetach>(method::VOLUME_DETACH, "Detach a volume"),
        types.change::<VolumeMove>(method::VOLUME_MOVE, "Move a volume from this VM to another one"),
        types.change::<VolumeReclaim>(
            method::VOLUME_RECLAIM,
            "Bring a volume back from another VM, with its former export",
        ),
        types.change::<VolumeResize>(method::VOLUME_RESIZE, "Grow a volume"),
        types.change::<VolumeDelete>(method::VOLUME_DELETE, "Delete a volume"),
        types.change::<VolumeRecover>(method::VOLUME_RECOVER, "Bring back a deleted volume"),
        types.change::<SnapshotCreate>(method::SNAPSHOT_CREATE, "Take a snapshot of a volume"),
        types.change::<SnapshotRevert>(method::SNAPSHOT_REVERT, "Revert a volume to a snapshot"),
        types.change::<SnapshotDelete>(method::SNAPSHOT_DELETE, "Delete a snapshot"),
        types.change::<ExportCreate>(method::EXPORT_CREATE, "Serve a volume over NBD"),
        types.change::<ExportDelete>(method::EXPORT_DELETE, "End an export"),
    ];
    let at_once = [
        types.at_once::<VolumeHold, Changed>(method::VOLUME_HOLD, "Hold a volume: nobody takes it away"),
        types.at_once::<VolumeRelease, Changed>(method::VOLUME_RELEASE, "End a hold"),
        types.at_once::<ExportKick, Kicked>(method::EXPORT_KICK, "Send clients of an export away"),
        types.at_once::<ExportPrune, Pruned>(method::EXPORT_PRUNE, "End the exports that nobody needs"),
        types.at_once::<OperationBegin, Begun>(method::OPERATION_BEGIN, "Begin several changes, or none of them"),
        types.at_once::<OperationWait, Changed>(method::OPERATION_WAIT, "Wait for the end of an operation"),
        types.at_once::<OperationGet, OperationShown>(method::OPERATION_CANCEL, "Cancel what was not sent yet"),
        types.at_once::<OperationGet, OperationShown>(method::OPERATION_RETRY, "Let a stuck operation look again"),
        types.at_once::<OperationAbandon, OperationShown>(method::OPERATION_ABANDON, "Give an operation up"),
        types.at_once::<StoreBackup, BackedUp>(method::STORE_BACKUP, "Copy the state store"),
        types.at_once::<TlsIssue, TlsIssued>(method::TLS_ISSUE, "Make certificates for the NBD server and its clients"),
        types.at_once::<SystemDrain, Drained>(method::SYSTEM_DRAIN, "Take nothing new, and let what is under way end"),
        types.at_once::<Nothing, Synced>(method::SYSTEM_SYNC, "Compare store, CloudStack, kernel and exports"),
    ];
    let looks = [
        types.look::<VolumeList, Volumes>(method::VOLUME_LIST, "List the volumes"),
        types.look::<VolumeGet, VolumeShown>(method::VOLUME_GET, "Show a volume"),
        types.look::<VolumeWhy, Why>(method::VOLUME_WHY, "Tell what happened to a volume, and why"),
        types.look::<DeviceGet, DeviceShown>(method::DEVICE_GET, "Show a volume's device here"),
        types.look::<DeviceFind, DeviceFound>(method::DEVICE_FIND, "Find whose device a path is"),
        types.look::<VmList, Vms>(method::VM_LIST, "List the VMs"),
        types.look::<VmGet, VmShown>(method::VM_GET, "Show a VM"),
        types.look::<ExportList, Exports>(method::EXPORT_LIST, "List the exports"),
        types.look::<SnapshotList, Snapshots>(method::SNAPSHOT_LIST, "List the snapshots"),
        types.look::<Nothing, ExportsChecked>(method::EXPORT_CHECK, "Check each export"),
        types.look::<OperationGet, OperationShown>(method::OPERATION_GET, "Show an operation and its history"),
        types.look::<OperationList, Operations>(method::OPERATION_LIST, "List the operations"),
        types.look::<OperationWatch, Endless>(
            method::OPERATION_WATCH,
            "Follow the operations, in `progress` notifications",
        ),
        types.look::<EventList, Events>(method::EVENT_LIST, "List what happened"),
        types.look::<EventWatch, Endless>(method::EVENT_WATCH, "Follow what happens, in `event` notifications"),
        types.look::<Nothing, Health>(method::SYSTEM_HEALTH, "Check every part"),
        types.look::<Nothing, Metrics>(method::SYSTEM_METRICS, "Measure, for monitoring"),
        types.look::<Nothing, Version>(method::SYSTEM_VERSION, "Show the daemon's version"),
    ];
    types.results.subschema_for::<Progress>();
    types.results.subschema_for::<EventNotice>();
    types.results.subschema_for::<Failure>();
    let discover = json!({
        "name": method::RPC_DISCOVER, "summary": "Answer this document", "params": [],
        "result": { "name": "document", "schema": { "$ref": META_SCHEMA } },
    });
    let methods: Vec<Value> = changes.into_iter().chain(at_once).chain(looks).chain([discover]).collect();
    json!({
        "openrpc": OPENRPC,
        "info": {
            "title": "volctl",
            "description": "Block volumes on CloudStack: create, attach, find the device, export over NBD, detach. \
                            JSON-RPC 2.0 over a Unix socket, one message a line. A change that waits sends notifications \
                            `progress` (schema Progress) before its answer where the caller gave a token. The data of an \
                            error is of the schema Failure.",
            "version": SCHEMA.to_string(),
            "license": { "name": "Apache-2.0" },
        },
        "methods": methods,
        "components": { "schemas": types.schemas(), "errors": errors() },
    })
}

/// What is collected while the methods are described: parameters as they are read, results as they are written.
struct Types {
    params: SchemaGenerator,
    results: SchemaGenerator,
}

impl Types {
    fn new() -> Self {
        let settings = || {
            SchemaSettings::draft07().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        let params = settings().for_deserialize().into_generator();
        Self { params, results: settings().for_serialize().into_generator() }
    }

    /// A change is journaled as an operation, and takes what every change takes.
    fn change<P: JsonSchema>(&mut self, name: &str, summary: &str) -> Value {
        let params = [self.params_of::<P>(), self.params_of::<Change>()].concat();
        self.method::<Changed>(name, summary, params, &[LOOK, CHANGE].concat())
    }

    /// Done at once, or waited for; nothing is journaled for it.
    fn at_once<P: JsonSchema, R: JsonSchema>(&mut self, name: &str, summary: &str) -> Value {
        let params = self.params_of::<P>();
        self.method::<R>(name, summary, params, &[LOOK, CHANGE].concat())
    }

    /// Changes nothing.
    fn look<P: JsonSchema, R: JsonSchema>(&mut self, name: &str, summary: &str) -> Value {
        let params = self.params_of::<P>();
        self.method::<R>(name, summary, params, LOOK)
    }

    fn method<R: JsonSchema>(&mut self, name: &str, summary: &str, params: Vec<Value>, kinds: &[Kind]) -> Value {
        let result = self.results.subschema_for::<R>();
        let errors: Vec<Value> =
            kinds.iter().map(|kind| json!({ "$ref": format!("#/components/errors/{}", word(*kind)) })).collect();
        json!({
            "name": name, "summary": summary, "paramStructure": "by-name", "params": params,
            "result": { "name": R::schema_name(), "schema": result }, "errors": errors,
        })
    }

    /// The fields of a type, each as a parameter; those that must be there first, as OpenRPC has them.
    fn params_of<P: JsonSchema>(&mut self) -> Vec<Value> {
        let schema: Schema = P::json_schema(&mut self.params);
        let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        let fields = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        let mut params: Vec<Value> =
            fields.into_iter().map(|(name, field)| param(&name, field, required.contains(&json!(name)))).collect();
        params.sort_by_key(|param| param["required"] != true);
        params
    }

    fn schemas(mut self) -> Map<String, Value> {
        let mut schemas = self.results.take_definitions(true);
        for (name, schema) in self.params.take_definitions(true) {
            let known = schemas.insert(name.clone(), schema.clone());
            assert!(known.is_none_or(|known| known == schema), "{name} is written otherwise than it is read");
        }
        schemas.sort_keys();
        schemas
    }
}

fn param(name: &str, mut schema: Value, required: bool) -> Value {
    let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
    json!({ "name": name, "description": description.unwrap_or_default(), "required": required, "schema": schema })
}

/// A kind as the socket writes it.
fn word(kind: Kind) -> String {
    json!(kind).as_str().unwrap_or_default().to_owned()
}

/// Every kind with its code.
fn errors() -> Map<String, Value> {
    let error =
        |kind: &Kind| (word(*kind), json!({ "code": kind.rpc_code(), "message": word(*kind).replace('_', " ") }));
    LOOK.iter().chain(CHANGE).map(error).collect()
}
