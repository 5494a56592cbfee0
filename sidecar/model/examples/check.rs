//! tmp
use pbx_model::checker::*;
fn main(){ let a:Vec<String>=std::env::args().skip(1).collect();
 for s in SCENARIOS { if a[0]!="all" && s.name!=a[0] {continue;}
 let t=std::time::Instant::now();
 let e=explore(s, a[1].parse().unwrap(), 2, std::time::Duration::from_secs(a[2].parse().unwrap()));
 println!("{}: states {} unique {} depth {} closed {} moves {} {:.1?}\n{}", s.name, e.states,e.unique,e.depth,e.is_closed,e.moves,t.elapsed(), e.violation.unwrap_or_default()); } }
