//! What the six kinds of task need.

use super::classes::{CLEAN, COOL, HEAT, PICK};
use crate::alfworld::TaskKind;

/// What has to be done to the object before it is placed: the verb and the tool's display class.
pub(crate) fn transform(kind: TaskKind) -> Option<(&'static str, &'static str)> {
    match kind {
        TaskKind::PickCleanThenPlaceInRecep => Some(("clean", "sinkbasin")),
        TaskKind::PickHeatThenPlaceInRecep => Some(("heat", "microwave")),
        TaskKind::PickCoolThenPlaceInRecep => Some(("cool", "fridge")),
        TaskKind::LookAtObjInLight
        | TaskKind::PickAndPlaceSimple
        | TaskKind::PickTwoObjAndPlace => None,
    }
}

/// What the object must afford.
pub(crate) fn needs(kind: TaskKind) -> u8 {
    PICK | match kind {
        TaskKind::PickCleanThenPlaceInRecep => CLEAN,
        TaskKind::PickHeatThenPlaceInRecep => HEAT,
        TaskKind::PickCoolThenPlaceInRecep => COOL,
        TaskKind::LookAtObjInLight
        | TaskKind::PickAndPlaceSimple
        | TaskKind::PickTwoObjAndPlace => 0,
    }
}
