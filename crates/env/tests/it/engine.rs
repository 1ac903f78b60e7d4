//! ALFWorld's rules and texts on a small kitchen.

use std::sync::Arc;

use empg::Limit;
use empg_env::alfworld::{AlfworldEnv, Command, DataVersion, Episode, Game, GameError, TaskKind};
use empg_env::{Env, EnvEnd, EnvError};

use crate::{KITCHEN, TASK};

fn game() -> Arc<Game> {
    Arc::new(Game::parse("kitchen", KITCHEN, TASK).expect("the kitchen parses"))
}

fn episode() -> Episode {
    Episode::new(game(), DataVersion::V2_1_2, None)
}

/// Plays commands and returns the last answer.
fn play(episode: &mut Episode, commands: &[&str]) -> String {
    let mut text = String::new();
    for command in commands {
        text = episode.step(command).observation.text;
    }
    text
}

#[test]
fn introduces_the_room_in_the_order_of_identifiers() {
    assert_eq!(
        episode().observe().text,
        "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly \
         around you, you see a cabinet 1, a countertop 1, a diningtable 1, a fridge 1, a microwave \
         1, and a sinkbasin 1.\n\nYour task is to: heat some apple and put it in diningtable."
    );
    assert_eq!(game().kind(), TaskKind::PickHeatThenPlaceInRecep);
}

#[test]
fn the_first_identifier_of_a_class_has_the_highest_number() {
    let text = play(&mut episode(), &["go to countertop 1"]);
    assert_eq!(
        text,
        "You arrive at countertop 1. On the countertop 1, you see a apple 2, a desklamp 1, and a \
         knife 1."
    );
}

#[test]
fn wins_by_heating_and_placing() {
    let mut episode = episode();
    let text = play(&mut episode, &["go to countertop 1", "take apple 2 from countertop 1"]);
    assert_eq!(text, "You pick up the apple 2 from the countertop 1.");
    let text = play(&mut episode, &["go to microwave 1", "heat apple 2 with microwave 1"]);
    assert_eq!(text, "You heat the apple 2 using the microwave 1.");
    assert_eq!(play(&mut episode, &["examine apple 2"]), "This is a hot apple 2.");
    episode.step("go to diningtable 1");
    let last = episode.step(" move apple 2 to diningtable 1\n");
    assert_eq!(last.observation.text, "You move the apple 2 to the diningtable 1.");
    assert!(last.won && last.effect && last.reward == 1.0);
    assert_eq!(last.end, Some(EnvEnd::Terminated));
}

#[test]
fn the_versions_differ_in_their_words() {
    let mut old = Episode::new(game(), DataVersion::V2_1_1, None);
    let text = play(&mut old, &["go to fridge 1"]);
    assert_eq!(text, "You arrive at loc 3. The fridge 1 is closed.");
    assert!(!old.step("help").effect);
    play(&mut old, &["go to countertop 1", "take apple 2 from countertop 1"]);
    assert!(old.admissible().contains(&"put apple 2 in/on countertop 1".to_owned()));
    assert!(!old.step("move apple 2 to countertop 1").effect);
    let text = play(&mut old, &["put apple 2 in/on countertop 1"]);
    assert_eq!(text, "You put the apple 2 in/on the countertop 1.");
    assert!(episode().step("help").observation.text.starts_with("Available commands:\n"));
}

#[test]
fn look_tells_what_was_put_elsewhere() {
    let mut episode = episode();
    let nothing = "You are in the middle of a room. Looking quickly around you, you see nothing.";
    assert_eq!(play(&mut episode, &["look"]), nothing);
    let facing = "You are facing the cabinet 1, and countertop 1. Next to it, you see ";
    assert_eq!(play(&mut episode, &["go to cabinet 1", "look"]), format!("{facing}nothing."));
    let text = play(
        &mut episode,
        &["open cabinet 1", "take apple 1 from cabinet 1", "move apple 1 to countertop 1", "look"],
    );
    assert_eq!(text, format!("{facing}a apple 1."));
    assert_eq!(play(&mut episode, &["close cabinet 1"]), "You close the cabinet 1.",);
}

#[test]
fn the_conditions_of_an_object_combine() {
    let mut episode = episode();
    play(&mut episode, &["go to countertop 1", "take knife 1 from countertop 1"]);
    let text = play(&mut episode, &["slice apple 2 with knife 1"]);
    assert_eq!(text, "You sliced the apple 2 with the knife 1.");
    play(&mut episode, &["move knife 1 to countertop 1", "take apple 2 from countertop 1"]);
    assert_eq!(play(&mut episode, &["examine apple 2"]), "This is a sliced apple 2.");
    let text = play(
        &mut episode,
        &["go to fridge 1", "heat apple 2 with microwave 1", "cool apple 2 with fridge 1"],
    );
    assert_eq!(text, "You cool the apple 2 using the fridge 1.");
    assert_eq!(play(&mut episode, &["examine apple 2"]), "This is a cool sliced apple 2.");
    play(&mut episode, &["go to sinkbasin 1", "clean apple 2 with sinkbasin 1"]);
    assert_eq!(
        play(&mut episode, &["examine apple 2"]),
        "This is a cool and clean sliced apple 2."
    );
}

#[test]
fn boxes_lamps_and_hands() {
    let mut episode = episode();
    assert_eq!(play(&mut episode, &["inventory"]), "You are not carrying anything.");
    let text = play(&mut episode, &["go to countertop 1", "use desklamp 1"]);
    assert_eq!(text, "You turn on the desklamp 1.");
    play(&mut episode, &["go to diningtable 1", "take box 1 from diningtable 1"]);
    assert_eq!(play(&mut episode, &["inventory"]), "You are carrying: a box 1.");
    let text = play(&mut episode, &["examine box 1"]);
    assert_eq!(text, "This is a normal box 1. In it, you see a mug 1.");
}

#[test]
fn admissible_is_sorted_complete_and_played() {
    let mut episode = episode();
    for turn in 0..300 {
        let texts = episode.admissible();
        let mut sorted = texts.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(texts, sorted);
        for text in &texts {
            assert!(episode.clone().step(text).effect, "{text}");
        }
        let mut commands = Vec::new();
        episode.admissible_commands(&mut commands);
        for (command, text) in commands.iter().zip(&texts) {
            let parsed = Command::parse(episode.game(), episode.version(), text);
            assert_eq!(parsed.as_ref(), Some(command));
        }
        episode.step(&texts[turn * 31 % texts.len()]);
    }
}

#[test]
fn junk_changes_nothing_but_is_a_step() {
    let mut episode = Episode::new(game(), DataVersion::V2_1_2, Some(9));
    for junk in
        ["", "LOOK", "go to", "go to cabinet", "open fridge 1", "take apple 9", "ſ", "look look"]
    {
        let before = episode.state().clone();
        let transition = episode.step(junk);
        assert_eq!(transition.observation.text, "Nothing happens.");
        assert!(!transition.effect && transition.end.is_none());
        assert_eq!(episode.state(), &before);
    }
    let end = episode.step("look").end;
    assert_eq!(end, Some(EnvEnd::Truncated(Limit::Turns)));
}

#[test]
fn the_environment_needs_a_reset() {
    let mut env = AlfworldEnv::new(game(), DataVersion::V2_1_2, Some(1));
    assert!(matches!(env.step("look"), Err(EnvError::NotRunning)));
    assert!(env.admissible().is_empty());
    env.reset("kitchen", 0).expect("a reset");
    assert!(env.step("look").expect("a step").end.is_some());
    assert!(matches!(env.step("look"), Err(EnvError::NotRunning)));
    assert!(!env.admissible().is_empty());
}

#[test]
fn other_domains_and_goals_are_refused_by_name() {
    let parse = |text: String| Game::parse("x", &text, TASK).expect_err("refused");
    let error = parse(KITCHEN.replace("(:domain alfred)", "(:domain sokoban)"));
    assert_eq!(error, GameError::UnknownDomain { name: "sokoban".to_owned() });
    let error = parse(KITCHEN.replace("(isHot ?o)", "(full ?r)"));
    assert!(matches!(&error, GameError::UnknownGoal { what } if what.contains("full")), "{error}");
    let error = parse(KITCHEN.replace("(openable Fridge_bar_1)", "(broken Fridge_bar_1)"));
    assert!(
        matches!(&error, GameError::Syntax { line: 29, what } if what.contains("broken")),
        "{error}"
    );
}
