import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.stream.Collectors;
import scienceworld.runtime.pythonapi.PythonInterface;

/**
 * ScienceWorld's simulator without Python: benchmarks/scienceworld_speed.py compiles it and compares.
 *
 * Standard input: an episode a line, `task TAB variation TAB action TAB action ...`. All of them are played `rounds` times;
 * the last round prints what the simulator said to each action, a line each, and then nanoseconds of steps: wall, CPU. Other
 * lines are the simulator's own.
 */
public class ScienceWorldAlone {
    public static void main(String[] args) throws Exception {
        int rounds = Integer.parseInt(args[0]);
        List<String> lines;
        try (BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            lines = in.lines().collect(Collectors.toList());
        }
        var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        PythonInterface simulator = new PythonInterface();
        for (int round = 1; round <= rounds; round++) {
            long wall = 0, cpu = 0;
            StringBuilder said = new StringBuilder();
            for (String line : lines) {
                String[] parts = line.split("\t");
                simulator.load(parts[0], Integer.parseInt(parts[1]), "easy", false);
                simulator.step("look around");
                long cpuBefore = system.getProcessCpuTime(), wallBefore = System.nanoTime();
                for (int i = 2; i < parts.length; i++) {
                    String text = simulator.step(parts[i]);
                    long score = Math.round(100 * simulator.getScore());
                    boolean done = score < 0 || simulator.getCompleted();
                    said.append("SAID ").append(String.join(" ", text.trim().split("\\s+"))).append('|');
                    said.append(score).append('|').append(done).append('\n');
                }
                wall += System.nanoTime() - wallBefore;
                cpu += system.getProcessCpuTime() - cpuBefore;
            }
            if (round == rounds) {
                System.out.print(said);
                System.out.println("SPENT " + wall + " " + cpu);
            }
        }
    }
}
