//! Operations on the collections of a cluster, as a history records them.

use sagitta_client::{Client, ClientError, CollectionPage, CreateCollection, View};
use sagitta_history::{Call, CatalogInput as Input, CatalogOutput as Output};
use sagitta_model::{CollectionInfo, ErrorKind};

use crate::dice::Dice;
use crate::points::{name, schema};

/// Few, so that clients meet.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// What a client does next.
pub fn draw(dice: &mut Dice) -> Input {
    let text = dice.pick(&NAMES).to_owned();
    match dice.below(6) {
        0 | 1 => Input::Create(text),
        2 => Input::Delete(text),
        3 | 4 => Input::Get(text),
        _ => Input::List,
    }
}

/// Has a cluster do it.
pub async fn perform(endpoint: &Client, input: Input) -> Result<Output, ClientError> {
    let identity = |info: &CollectionInfo| info.id as u64;
    match input {
        Input::Create(text) => {
            let mut create = CreateCollection::new(name(&text), schema());
            create.replication = Some(1);
            endpoint.create(create).await.map(|info| Output::Created(identity(&info)))
        }
        Input::Delete(text) => endpoint.delete_collection(name(&text), false).await.map(|()| Output::Deleted),
        Input::Get(text) => {
            endpoint.get_collection(name(&text), View::Basic).await.map(|info| Output::Found(identity(&info)))
        }
        Input::List => {
            let listed = endpoint.list_collections(View::Basic, 100, String::new()).await;
            let all = |page: CollectionPage| {
                page.collections.iter().map(|info| (info.name.to_string(), identity(info))).collect()
            };
            listed.map(|page| Output::Listed(all(page)))
        }
    }
}

/// Records what came of an operation; whether it was answered.
pub fn settle(call: Call<Input, Output>, answer: Result<Output, ClientError>) -> bool {
    let output = match answer {
        Ok(output) => output,
        // An earlier try created it, and somebody has deleted it since: when is not said.
        Err(error) if error.reason == "REQUEST_ID_REUSED" => {
            call.unknown();
            return false;
        }
        Err(error) if error.kind == ErrorKind::Conflict => Output::Taken,
        Err(error) if error.kind == ErrorKind::NotFound => Output::Missing,
        Err(_) => {
            call.unknown();
            return false;
        }
    };
    call.ok(output);
    true
}
