// Messages over given paths in SimGrid's fluid model: prints makespan, processor seconds and version.
//
// Usage: all_to_all JOB. The file holds numbers alone: hosts, links, flows, bytes/s of a link,
// bytes of a flow; then of every flow its two hosts, the length of its path and the links of it.

#include <ctime>
#include <fstream>
#include <iostream>
#include <simgrid/s4u.hpp>
#include <simgrid/version.h>
#include <string>
#include <vector>

namespace sg = simgrid::s4u;

static double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

int main(int argc, char* argv[])
{
  sg::Engine engine(&argc, argv);
  // Rates as they stand: no share for headers, no latency, no TCP window, no reverse traffic.
  sg::Engine::set_config("network/model:CM02");
  sg::Engine::set_config("network/TCP-gamma:0");
  sg::Engine::set_config("network/crosstraffic:0");
  sg::Engine::set_config("network/weight-S:0");

  std::ifstream job(argv[1]);
  size_t hosts = 0, links = 0, flows = 0;
  double rate = 0, size = 0;
  job >> hosts >> links >> flows >> rate >> size;

  auto* zone = sg::create_full_zone("fabric");
  std::vector<sg::Host*> host;
  std::vector<sg::Link*> link;
  for (size_t i = 0; i < hosts; i++)
    host.push_back(zone->create_host("h" + std::to_string(i), 1e9));
  for (size_t i = 0; i < links; i++)
    link.push_back(zone->create_link("l" + std::to_string(i), rate)->set_latency(0)->seal());

  std::vector<std::pair<size_t, size_t>> ends;
  for (size_t i = 0; i < flows; i++) {
    size_t src = 0, dst = 0, length = 0, number = 0;
    job >> src >> dst >> length;
    std::vector<sg::LinkInRoute> path;
    for (size_t at = 0; at < length; at++) {
      job >> number;
      path.emplace_back(link.at(number));
    }
    zone->add_route(host.at(src)->get_netpoint(), host.at(dst)->get_netpoint(), nullptr, nullptr, path, false);
    ends.emplace_back(src, dst);
  }
  if (not job) {
    std::cerr << "the job is cut short; expected hosts, links, flows, rate, bytes and a path a flow\n";
    return 1;
  }
  zone->seal();

  sg::Actor::create("all", host[0], [&] {
    std::vector<sg::CommPtr> under_way;
    for (auto [src, dst] : ends)
      under_way.push_back(sg::Comm::sendto_async(host[src], host[dst], static_cast<uint64_t>(size)));
    sg::Comm::wait_all(under_way);
  });
  const double begun = processor_seconds();
  engine.run();
  std::cout.precision(17);
  std::cout << sg::Engine::get_clock() << " " << processor_seconds() - begun << " " << SIMGRID_VERSION_MAJOR << "."
            << SIMGRID_VERSION_MINOR << "\n";
}
