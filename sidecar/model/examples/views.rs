//! tmp
use pbx_model::world::*; use pbx_model::world::faults::*;
fn main(){ let a:Vec<u64>=std::env::args().skip(1).map(|x|x.parse().unwrap()).collect();
 let mut w=random_world(a[1] as u8,a[0]); w.run_until(FAULTS_END); w.heal(); w.run_for(50_000);
 for (i,p) in w.pods.iter().enumerate() { println!("pod {i} seat {} occ {} dead {:?} term {} node {} cond {:?} ast {:?}", p.seat.0,p.occupant.0,p.dead_since,p.is_terminating,p.node.is_some(),p.condition,p.asterisk);
  if let Some(n)=&p.node { if p.dead_since.is_none() { println!("   {:?}\n  {:?}", n.view(p.clock.local(w.now)), n); } } } }
