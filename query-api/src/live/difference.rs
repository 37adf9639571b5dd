//! What changed between two states of a list, as little of it as tells all.

use std::collections::HashMap;

use crate::query::Member;

/// Which of `before` are gone, and which of `after` are to be put, each behind the one before it and in this order; what
/// is put is taken from where it was. `None`: members that did not change stand in another order, so all is to be told.
///
/// A document moves only when it changes, so what did not change stays where it is and is not told.
pub(super) fn difference(before: &[Member], after: &[Member]) -> Option<(Vec<usize>, Vec<usize>)> {
    let was: HashMap<&[u8], (usize, u64)> =
        before.iter().enumerate().map(|(at, member)| (member.id.as_slice(), (at, member.stamp))).collect();
    let is: HashMap<&[u8], ()> = after.iter().map(|member| (member.id.as_slice(), ())).collect();
    let gone = (0..before.len()).filter(|at| !is.contains_key(before[*at].id.as_slice())).collect();
    let mut put = Vec::new();
    let mut behind = None;
    for (number, member) in after.iter().enumerate() {
        match was.get(member.id.as_slice()) {
            Some((at, stamp)) if *stamp == member.stamp => {
                if behind.is_some_and(|behind| *at < behind) {
                    return None;
                }
                behind = Some(*at);
            }
            _ => put.push(number),
        }
    }
    Some((gone, put))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a client does it.
    fn apply(before: &[Member], after: &[Member], gone: &[usize], put: &[usize]) -> Vec<Member> {
        let is_taken = |member: &Member| {
            gone.iter().any(|at| before[*at].id == member.id) || put.iter().any(|at| after[*at].id == member.id)
        };
        let mut list: Vec<Member> = before.iter().filter(|member| !is_taken(member)).cloned().collect();
        for at in put {
            let place = at.checked_sub(1).map_or(0, |previous| {
                1 + list.iter().position(|member| member.id == after[previous].id).expect("the one before is there")
            });
            list.insert(place, after[*at].clone());
        }
        list
    }

    fn list() -> impl Strategy<Value = Vec<Member>> {
        let member = (0u8..12, 0u64..3).prop_map(|(id, stamp)| Member { id: vec![id], stamp });
        prop::collection::vec(member, 0..10).prop_map(|mut list| {
            let mut seen = Vec::new();
            list.retain(|member| {
                let is_new = !seen.contains(&member.id);
                seen.push(member.id.clone());
                is_new
            });
            list
        })
    }

    proptest! {
        #[test]
        fn a_client_that_applies_it_has_the_new_state(before in list(), after in list()) {
            if let Some((gone, put)) = difference(&before, &after) {
                prop_assert_eq!(apply(&before, &after, &gone, &put), after.clone());
                let unchanged = after.iter().filter(|member| before.contains(member)).count();
                prop_assert_eq!(put.len(), after.len() - unchanged, "no more is told than changed");
            }
        }

        #[test]
        fn what_keeps_its_order_is_never_told_whole(mut before in list(), mut after in list()) {
            before.sort_by(|a, b| a.id.cmp(&b.id));
            after.sort_by(|a, b| a.id.cmp(&b.id));
            prop_assert!(difference(&before, &after).is_some());
        }
    }
}
